"""Compares the figures of benchmarks with values computed by hand.

The figures are those of the splits, POPE's F1, OCRBench's total and the average of all benchmarks.
"""

from dataclasses import replace

import pytest

from awares.episode import Episode, StopReason
from awares.sample import Sample
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.evaluate.by_benchmark import benchmark_metrics, benchmarks_table
from awares_platform.evaluate.results import NAMES, policy_metrics
from awares_platform.evaluate.scored import Scored


def scored(name: str, answer: str, truth: str, kind: str = "", image: str = "a") -> Scored:
    sample = Sample(f"{name}/{answer}", image * 64, "q?", truth, kind)
    episode = Episode(
        sample_id=sample.sample_id,
        image=sample.image,
        image_size=(112, 112),
        turns=(),
        answer=answer,
        stop=StopReason.ANSWER,
        visual_tokens=4,
        rtr_token=0.5,
        rtr_pixel=0.25,
    )
    score = float(answer == truth)
    return Scored(sample, sample, episode, score, None, None, {"2026-08": score})


ROWS = [
    scored("pope", "yes", "yes", "random"),
    scored("pope", "yes", "no", "random", "b"),
    scored("pope", "no", "yes", "popular"),
    scored("ocrbench", "STOP", "STOP", "Scene Text-centric VQA"),
    scored("ocrbench", "x", "y", "Doc-oriented VQA"),
    scored("ocrbench", "z", "z", "Doc-oriented VQA"),
]


def test_splits_f1_total_and_average() -> None:
    found = benchmark_metrics({"full": ROWS}, ("pope", "ocrbench"), 0, "2026-08")
    pope, ocrbench = found["pope"]["full"], found["ocrbench"]["full"]
    assert (pope["n"], pope["published_n"], pope["f1"]) == (3, 9000, 0.5)
    assert pope["splits"]["random"] == {"n": 2, "accuracy": 0.5, "f1": pytest.approx(2 / 3)}
    assert pope["splits"]["popular"] == {"n": 1, "accuracy": 0.0, "f1": 0.0}
    assert (ocrbench["total"], ocrbench["total_of"]) == (2.0, 3)
    assert ocrbench["splits"]["Doc-oriented VQA"] == {"n": 2, "accuracy": 0.5}
    average = found["average"]["full"]
    assert average["accuracy"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert (average["rtr_token"], average["rtr_pixel"]) == (0.5, 0.25)
    # The bootstrap draws whole images. POPE's three questions are about only two images.
    assert pope["accuracy_ci95"] == [0.0, 0.5]
    assert benchmarks_table({"benchmarks": found}, NAMES).splitlines() == [
        "| policy | pope | ocrbench | average |",
        "|---|---|---|---|",
        "| full resolution | 33.33 (0.50) | 66.67 (0.50) | 50.00 (0.50) |",
    ]
    assert benchmarks_table({}, NAMES) == ""


def test_an_episode_that_failed_scores_0_and_spends_no_known_share() -> None:
    error = replace(ROWS[0].episode, turns=(), answer=None, stop=StopReason.ERROR, rtr_token=0.0)
    lost = replace(ROWS[0], episode=replace(error, rtr_pixel=0.0), score=0.0)
    pope = benchmark_metrics({"full": [*ROWS, lost]}, ("pope",), 0, "2026-08")["pope"]["full"]
    assert (pope["n"], pope["errors"], pope["accuracy"]) == (4, 1, 0.25)
    assert (pope["rtr_token"], pope["rtr_pixel"]) == (0.5, 0.25)
    alone = benchmark_metrics({"full": [lost]}, ("pope",), 0, "2026-08")["pope"]["full"]
    assert (alone["errors"], alone["rtr_token"], alone["call_rate"]) == (1, 0.0, 0.0)
    groups = policy_metrics([*ROWS, lost], may_call=False, seed=0)["by_kind"]
    assert (groups["random"]["n"], groups["random"]["rtr_token"]) == (3, 0.5)


def test_benchmarks_without_a_root_or_named_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="needs evaluate.benchmark_root"):
        EvaluateConfig(benchmarks=("pope",))
    with pytest.raises(ValueError, match="names one twice"):
        EvaluateConfig(benchmarks=("pope", "pope"), benchmark_root="/data")
