from dataclasses import replace
from itertools import count

import pytest

from awares.crops import CropId, area_fraction, crop_box, iou
from awares.episode import Episode, StopReason
from awares.evaluation.decisions import decisions, region_iou
from awares.evaluation.summary import summarise, table
from awares.sample import Label, Sample
from tests.spoken_turn import spoken_turn

C, S = CropId, StopReason
IMAGES = count()


def pair(label, target, asked, stop=S.ANSWER, rtr=0.25):
    turns = (spoken_turn(crops=asked, stop=None if asked else stop, area=area_fraction(asked)),)
    if asked:
        turns += (spoken_turn(stop=stop),)
    return Episode(
        sample_id="s",
        image="h",
        image_size=(8, 8),
        turns=turns,
        answer="7",
        stop=stop,
        visual_tokens=4,
        rtr_token=rtr,
        rtr_pixel=rtr,
    ), Sample("s", f"h{next(IMAGES)}", "?", "7", label=label, crops=target)


PAIRS = [
    # The policy requests exactly the target crops.
    pair(Label.HR, (C.TOP_LEFT,), (C.TOP_LEFT,), rtr=0.5),
    # The requested crops differ from the target crops, but cover the same region.
    pair(Label.HR, (C.TOP_LEFT, C.TOP_RIGHT), (C.TOP,), rtr=0.75),
    # The policy requests a crop of another region.
    pair(Label.HR, (C.TOP_LEFT,), (C.BOTTOM,), rtr=0.75),
    # The label says that crops are needed, but the policy requests none.
    pair(Label.HR, (C.TOP_LEFT,), ()),
    # The label says that no crop is needed, but the policy requests one.
    pair(Label.LR, (), (C.ALL,), rtr=1.25),
    pair(Label.LR, (), ()),
    pair(Label.LR, (), (), S.MALFORMED),
    # A sample without a label counts only in the metrics that need no label.
    pair(None, (), (C.CENTER,), rtr=0.5),
    # An episode that ended with an error counts in no metric of `decisions`.
    pair(Label.HR, (C.TOP_LEFT,), (), S.ERROR),
]


def test_by_hand():
    got = decisions(PAIRS)
    assert got.call_rate == 5 / 8
    assert (got.precision, got.recall) == (3 / 4, 3 / 4) and got.f1 == pytest.approx(0.75)
    assert got.false_positive_rate == 1 / 3
    assert (got.region_exact, got.region_match) == (1 / 3, 2 / 3)
    assert got.mean_area == pytest.approx((0.25 + 0.5 + 0.5 + 1.0 + 0.25) / 5)
    assert got.valid_parse_rate == 5 / 6
    assert got.histogram == {
        "none": 3,
        "0": 1,
        "1": 0,
        "2": 0,
        "3": 0,
        "4": 1,
        "5": 1,
        "6": 1,
        "7": 0,
        "8": 0,
        "all": 1,
    }


def test_a_request_that_the_token_limit_cut_says_nothing_about_the_form():
    episode, sample = pair(Label.LR, (), (), S.MALFORMED)
    cut = replace(episode, turns=(replace(episode.turns[0], cut=True),))
    called, refused = PAIRS[0], (episode, sample)
    assert decisions([called, refused]).valid_parse_rate == 0.5
    assert decisions([called, refused, (cut, sample)]).valid_parse_rate == 0.5
    assert decisions([(cut, sample)]).valid_parse_rate is None


def test_nothing_to_count_is_none_not_zero():
    got = decisions([pair(Label.LR, (), ())])
    rates = (got.precision, got.recall, got.region_exact, got.mean_area, got.valid_parse_rate)
    assert rates == (None,) * 5
    assert decisions([]).call_rate is None


def test_region_iou_agrees_with_boxes_on_single_crops():
    for first in C:
        for second in C:
            assert region_iou([first], [second]) == pytest.approx(
                iou(crop_box(first, (400, 400)), crop_box(second, (400, 400)))
            )
    assert region_iou([C.TOP, C.BOTTOM], [C.ALL]) == 1.0


def test_a_summary_by_hand():
    episodes, samples = zip(*PAIRS, strict=True)
    scores = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    got = summarise(episodes, samples, scores, [float(i) for i in range(1, 10)], seed=1)
    assert (got.n, got.errors) == (9, 1)
    # The episode that ended with an error counts as a score of 0.
    assert got.accuracy == pytest.approx(5 / 9)
    assert got.accuracy_ci95[0] < 5 / 9 < got.accuracy_ci95[1]
    assert got.rtr_token == pytest.approx((0.5 + 0.75 + 0.75 + 0.25 + 1.25 + 0.25 + 0.25 + 0.5) / 8)
    assert (got.latency_p50_s, got.latency_p95_s) == (5.0, pytest.approx(8.6))
    assert got.decisions == decisions(PAIRS)
    assert summarise(episodes, samples, scores).latency_p50_s is None


def test_the_table_has_the_papers_form():
    episodes, samples = zip(*PAIRS[:2], strict=True)
    right, half = summarise(episodes, samples, [1.0, 1.0]), summarise(episodes, samples, [1.0, 0.0])
    assert table(
        {"full": {"chartqa": right, "pope": half}, "low": {"chartqa": half, "pope": half}}
    ).splitlines() == [
        "| policy | chartqa acc (RTR) | pope acc (RTR) | average acc (RTR) |",
        "|---|---|---|---|",
        "| full | 100.00 [100.0, 100.0] (0.62) | 50.00 [0.0, 100.0] (0.62) | 75.00 (0.62) |",
        "| low | 50.00 [0.0, 100.0] (0.62) | 50.00 [0.0, 100.0] (0.62) | 50.00 (0.62) |",
    ]
