"""Tests the metrics of hand-made episodes, and the table of results."""

import io
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from awares.crops import CropId, area_fraction
from awares.episode import Episode, StopReason, Turn
from awares.sample import Label, Sample
from awares.view import View, crop_view
from awares_platform.evaluate.episode_rows import encode_episodes
from awares_platform.evaluate.results import comparisons, label_counts, policy_metrics, table
from awares_platform.evaluate.scored import Scored

SIZE = (112, 112)


def scored(
    index: int,
    crops: tuple[CropId, ...],
    score: float,
    label: Label,
    target: tuple[CropId, ...] = (),
    latency_s: float | None = None,
) -> Scored:
    """Return a scored episode that requested `crops`.

    The label in the dataset and the label from the evaluation are both `label`.
    """
    sample = Sample(
        f"s{index}",
        f"{index}" * 64,
        "q",
        "7",
        kind="digit on",
        evidence=((4, 4, 36, 36),),
        label=label,
        crops=target,
    )
    views = tuple(crop_view(crop, SIZE) for crop in crops)
    first = Turn(
        context_ids=(1,),
        views=(View(None),),
        sampled_ids=(2,),
        logprobs=(0.0,),
        versions=(0,),
        text="GET_CROPS" if crops else "7",
        crops=crops,
        stop=None if crops else StopReason.ANSWER,
        area=area_fraction(crops),
    )
    second = Turn(
        context_ids=(1,),
        views=views,
        sampled_ids=(2,),
        logprobs=(0.0,),
        versions=(0,),
        text="7",
        crops=(),
        stop=StopReason.ANSWER,
    )
    ratio = 0.25 + area_fraction(crops)
    turns = (first, second) if crops else (first,)
    episode = Episode(
        sample_id=sample.sample_id,
        image=sample.image,
        image_size=SIZE,
        turns=turns,
        answer="7",
        stop=StopReason.ANSWER,
        visual_tokens=int(16 * ratio),
        rtr_token=ratio,
        rtr_pixel=ratio,
    )
    return Scored(sample, sample, episode, score, latency_s, 10 * score)


FOUR = [
    scored(0, (), 1.0, Label.LR, latency_s=0.01),
    scored(1, (CropId.TOP_LEFT,), 1.0, Label.HR, (CropId.TOP_LEFT,), latency_s=0.03),
    scored(2, (CropId.TOP,), 0.0, Label.LR),
    scored(3, (), 0.0, Label.HR, (CropId.BOTTOM_RIGHT,)),
]


def test_policy_metrics_by_hand() -> None:
    row = policy_metrics(FOUR, may_call=True, seed=0)
    assert (row["n"], row["errors"], row["accuracy"], row["call_rate"]) == (4, 0, 0.5, 0.5)
    assert row["rtr_token"] == row["rtr_pixel"] == pytest.approx((0.25 + 0.5 + 0.75 + 0.25) / 4)
    assert row["accuracy_ci95"][0] < 0.5 < row["accuracy_ci95"][1]
    assert row["latency_p50_s"] == pytest.approx(0.02)
    assert (
        row["crops"]["direct"] == 2
        and row["crops"]["0"] == 1
        and row["crops"]["5"] == 1
        and row["crops"]["all"] == 0
    )
    assert row["by_kind"] == {
        "digit on": {"n": 4, "accuracy": 0.5, "rtr_token": pytest.approx(0.4375), "call_rate": 0.5}
    }
    assert row["by_label"]["LR"]["accuracy"] == 0.5 and row["by_label"]["HR"]["n"] == 2
    decision = row["decision"]
    assert (
        decision["call_precision"],
        decision["call_recall"],
        decision["call_f1"],
        decision["call_fpr"],
    ) == (0.5, 0.5, 0.5, 0.5)
    assert (
        decision["region_exact"],
        decision["region_iou25"],
        decision["mean_area"],
        decision["valid_rate"],
    ) == (1.0, 1.0, 0.375, 1.0)
    assert row["decision_annotated"] == decision


def test_a_policy_without_calls_has_no_decisions() -> None:
    row = policy_metrics([FOUR[0], FOUR[3]], may_call=False, seed=0)
    assert "decision" not in row and row["call_rate"] == 0.0


def test_paired_comparisons() -> None:
    worse = [scored(index, (), 0.0, Label.LR) for index in range(4)]
    assert comparisons({"low": worse, "sft": FOUR}, seed=0) == {}
    found = comparisons({"low": worse, "awares": FOUR}, seed=0)
    assert list(found) == ["awares-low"] and found["awares-low"]["accuracy"] == 0.5
    assert (
        0.0
        <= found["awares-low"]["accuracy_ci95"][0]
        < found["awares-low"]["accuracy_ci95"][1]
        <= 1.0
    )


def test_label_counts() -> None:
    bare = Sample("x", "a" * 64, "q", "7")
    assert label_counts([*(one.labelled for one in FOUR), bare]) == {
        "counts": {"LR": 2, "HR": 2, "none": 1},
        "crops": {"0": 1, "3": 1},
    }


def results() -> dict[str, Any]:
    row = policy_metrics(FOUR, may_call=True, seed=0) | {
        "accuracy": 0.8064,
        "accuracy_ci95": [0.79, 0.82],
        "rtr_token": 0.32,
        "rtr_pixel": 0.31,
    }
    low = row | {"call_rate": 0.0, "latency_p50_s": None, "latency_p95_s": None}
    return {
        "policies": {"awares": row, "low": low},
        "questions": 2048,
        "seed": 0,
        "latency": {"questions": 64},
    }


def test_the_table_is_in_the_papers_order() -> None:
    lines = table(results()).splitlines()
    assert (
        lines[0].startswith("| policy")
        and lines[1].startswith("| ---")
        and lines[1].endswith(": |")
    )
    assert (
        lines[2].split("|")[1].strip() == "low resolution" and lines[2].split("|")[8].strip() == ""
    )
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "AwaRes", "80.6%", "79.0% to 82.0%", "0.320", "0.310", "50.0%", "5.00", "20 ms", "29 ms",
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1


def test_episodes_as_rows() -> None:
    rows = pq.read_table(io.BytesIO(encode_episodes(FOUR))).to_pylist()
    assert [row["correct"] for row in rows] == [True, True, False, False]
    assert (
        rows[1]["crops"] == ["0"]
        and rows[1]["boxes"] == [[0, 0, 56, 56]]
        and rows[1]["turns"] == ["GET_CROPS", "7"]
    )
    assert rows[0]["boxes"] == [] and rows[0]["latency_s"] == 0.01 and rows[2]["latency_s"] is None
    assert (rows[3]["label"], rows[3]["target_crops"], rows[3]["width"]) == ("HR", ["3"], 112)


def test_a_malformed_episode_is_no_direct_answer() -> None:
    malformed = replace(FOUR[0].episode, answer=None, stop=StopReason.MALFORMED)
    row = policy_metrics([replace(FOUR[0], episode=malformed), *FOUR[1:]], may_call=True, seed=0)
    assert (row["crops"]["direct"], row["unanswered"]) == (1, 1)
