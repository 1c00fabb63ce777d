"""Tests the steps of evaluation that need no engine.

These steps select usable questions, assign labels, and score answers.
"""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from awares.crops import CropId
from awares.environment import Request
from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError, MissingPolicy
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.reward import CropReward
from awares.sample import Label, Sample
from awares.ten_crops import TEN_CROPS
from awares.view import View
from awares_platform.config import PlatformConfig
from awares_platform.data.images import Images
from awares_platform.evaluate.job import (
    EvaluateResult,
    assemble,
    check_policies,
    usable,
)
from awares_platform.evaluate.labels import label
from awares_platform.evaluate.playing import latency_subset
from awares_platform.evaluate.policies import POLICIES
from awares_platform.evaluate.results import policy_metrics, versions_table
from awares_platform.evaluate.scored import score_all
from awares_platform.method.play import Played
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

CONFIG = PlatformConfig()
REWARD = CropReward("exact")
IMAGES = cast(Images, lambda digest: Image.new("RGB", (112, 112)))


def sample(index: int, annotation: Label | None = None) -> Sample:
    return Sample(f"s{index}", "a" * 64, "digit?", "7", "digit on", ((4, 4, 36, 36),), annotation)


def played(index: int, answer: str | None, latency_s: float = 0.02) -> Played:
    stop = StopReason.ANSWER if answer is not None else StopReason.MALFORMED
    episode = Episode(
        sample_id=f"s{index}",
        image="a" * 64,
        image_size=(112, 112),
        turns=(),
        answer=answer,
        stop=stop,
        visual_tokens=4,
        rtr_token=0.25,
        rtr_pixel=0.25,
    )
    return Played(sample(index), episode, latency_s, "")


def test_a_question_without_an_image_is_left_out_for_all() -> None:
    broken = Played(sample(1), None, 0.0, "images/aa is damaged")
    rows = {"low": [played(0, "7"), broken], "full": [played(0, "7"), played(1, "7")]}
    assert {
        policy: [one.sample.sample_id for one in kept] for policy, kept in usable(rows).items()
    } == {"low": ["s0"], "full": ["s0"]}
    with pytest.raises(DataError, match="no question of split 'test' can be played.*is damaged"):
        usable({"low": [broken]})


def sampled(index: int, answer: str | None, logprob: float = 0.0) -> Played:
    one = played(index, answer)
    assert one.episode is not None
    turn = Turn(
        context_ids=(1,),
        views=(View(None),),
        sampled_ids=(2,),
        logprobs=(logprob,),
        versions=(0,),
        text=answer or "",
        crops=(),
        stop=one.episode.stop,
    )
    return replace(one, episode=replace(one.episode, turns=(turn,)))


def test_labels_come_from_the_low_and_full_answers() -> None:
    """Check the labels of four samples.

    Two right answers give the label HR if the low-resolution answer is unsure. Two wrong answers
    give no label.
    """
    low = [sampled(0, "7"), sampled(1, "1"), sampled(2, None), sampled(3, "7", logprob=-1.0)]
    rows = {"low": low, "full": [sampled(index, answer) for index, answer in enumerate("7727")]}
    found, unpaid = label(CONFIG.method, CONFIG.curate, QWEN2_5_VL, rows, IMAGES)
    assert [(found[f"s{index}"].label, found[f"s{index}"].crops) for index in range(4)] == [
        (Label.LR, ()),
        (Label.HR, (CropId.TOP_LEFT,)),
        (None, ()),
        (Label.HR, (CropId.TOP_LEFT,)),
    ]
    low = Played(sample(0, Label.HR), played(0, "1").episode, 0.1, "")
    alone, _ = label(CONFIG.method, CONFIG.curate, QWEN2_5_VL, {"low": [low]}, IMAGES)
    assert alone["s0"].label is None and unpaid == 0


def test_scores_and_latencies() -> None:
    rows = [played(0, "7.", 0.5), played(1, "8"), played(2, None)]
    labelled = {one.sample.sample_id: one.sample for one in rows}
    found = score_all(rows, labelled, "exact", {"s0"}, REWARD)
    assert [(one.score, one.latency_s) for one in found] == [(1.0, 0.5), (0.0, None), (0.0, None)]


def test_a_sample_may_have_several_answers_and_its_own_scorer() -> None:
    rows = [played(0, "seven"), played(1, "14.2"), played(2, "14.2")]
    further = {"s0": {"further_answers": ("Seven",)}, "s1": {"scorer": "chartqa"}}
    rows = [
        replace(
            row, sample=replace(row.sample, answer="14", **further.get(row.sample.sample_id, {}))
        )
        for row in rows
    ]
    labelled = {one.sample.sample_id: one.sample for one in rows}
    found = score_all(rows, labelled, "exact", set(), REWARD)
    assert [one.score for one in found] == [1.0, 1.0, 0.0]


def test_the_results_hold_the_accuracy_by_each_version_of_the_scorers() -> None:
    rows = [played(0, "Answer: B"), played(1, "B")]
    rows = [replace(row, sample=replace(row.sample, answer="B")) for row in rows]
    labelled = {one.sample.sample_id: one.sample for one in rows}
    for version, accuracy in {"2026-03": 0.5, "2026-08": 0.5, "repaired": 1.0}.items():
        found = score_all(rows, labelled, "vstar_bench", set(), REWARD, version)
        row = policy_metrics(found, may_call=False, seed=0)
        assert row["accuracy"] == accuracy == row["accuracy_by_version"][version]
        assert versions_table({"policies": {"full": row}}).splitlines() == [
            "| accuracy by | 2026-03 | 2026-08 | repaired |",
            "|---|---|---|---|",
            "| full resolution | 50.0% | 50.0% | 100.0% |",
        ]
        alike = policy_metrics(found[1:], may_call=False, seed=0)
        assert versions_table({"policies": {"full": alike}}) == ""


def test_rewards_as_in_training_where_there_is_a_label() -> None:
    labels = (Label.LR, Label.HR, None)
    rows = [played(index, "7") for index in range(3)]
    labelled = {f"s{index}": sample(index, label) for index, label in enumerate(labels)}
    found = score_all(rows, labelled, "exact", set(), REWARD)
    assert [one.reward for one in found] == [10.0, 8.0, None]


def test_the_latency_questions_are_drawn_once_for_all_policies() -> None:
    config = CONFIG.model_copy(
        update={"evaluate": CONFIG.evaluate.model_copy(update={"latency_questions": 5})}
    )
    samples = [sample(index) for index in range(50)]
    drawn = latency_subset(config.evaluate, config.run.seed, samples)
    assert len({one.sample_id for one in drawn}) == 5 and drawn == latency_subset(
        config.evaluate, config.run.seed, samples
    )
    assert len(latency_subset(config.evaluate, config.run.seed, samples[:3])) == 3


def test_results_hold_what_readers_rely_on() -> None:
    rows = {policy: [played(0, "7"), played(1, "1")] for policy in ("full", "awares")}
    labelled = {one.sample.sample_id: one.sample for one in rows["full"]}
    scored = {
        policy: score_all(ones, labelled, "exact", {"s0"}, REWARD) for policy, ones in rows.items()
    }
    results = assemble(
        CONFIG.run, CONFIG.evaluate, TEN_CROPS, scored, labelled, unusable=1, faults=2, unpaid=0
    )
    wanted = {
        "accuracy",
        "accuracy_ci95",
        "rtr_token",
        "rtr_pixel",
        "call_rate",
        "latency_p50_s",
        "latency_p95_s",
        "n",
        "crops",
        "by_kind",
    }
    assert all(wanted <= set(results["policies"][policy]) for policy in rows)
    assert (results["questions"], results["unusable"], results["seed"]) == (2, 3, 0)
    assert (
        results["policies"]["full"]["n"] == 2
        and results["comparisons"]["awares-full"]["accuracy"] == 0.0
    )


def test_a_policy_that_was_not_trained_is_named_with_both_remedies(tmp_path: Path) -> None:
    class Empty:
        def get(self, key: str) -> bytes:
            raise NotFound(key)

    store = cast(ObjectStore, Empty())
    with pytest.raises(MissingPolicy) as caught:
        check_policies(
            store, "r", CONFIG.policy, CONFIG.grpo, CONFIG.evaluate.policies, CONFIG.method
        )
    message = str(caught.value)
    assert (
        "no policy awares or sft: run `awares grpo` and `awares sft`" in message
        and "evaluate.policies=['full', 'low']" in message
    )
    check_policies(store, "r", CONFIG.policy, CONFIG.grpo, ("full", "low"), CONFIG.method)


def test_each_policy_plays_in_its_environment() -> None:
    size, request = (112, 56), Request(("0",))
    full, low, decides, awares = (
        POLICIES[name].spec(CONFIG.method, QWEN2_5_VL, 32, 1024).environment
        for name in ("full", "low", "escalate", "awares")
    )
    assert (full.first_view(size), full.max_turns) == (View((0, 0, 112, 56)), 1)
    assert (low.first_view(size), low.max_turns) == (View(), 1)
    assert (awares.first_view(size), awares.max_turns) == (View(), 2)
    assert (decides.first_view(size), decides.max_turns) == (View(), 1)
    for asks in (decides, awares):
        assert asks.parse("GET_CROPS: ['0']") == request
    assert awares.views(request, size) == (View((0, 0, 56, 28)),)
    assert POLICIES["escalate"].weights == POLICIES["awares"].weights == "awares"
    assert {name for name, policy in POLICIES.items() if policy.may_call} == {
        "escalate",
        "sft",
        "awares",
    }


def test_the_summary_has_the_table_the_faults_and_the_places() -> None:
    results = {
        "policies": {"low": {}, "full": {}},
        "questions": 2048,
        "unusable": 3,
        "seed": 0,
        "latency": {"questions": 0},
    }
    path = Path("runs/mini/evaluate/results.json")
    result = EvaluateResult(results, "| policy |", path, "runs/mini/evaluate", wall_s=154.6)
    assert result.summary("s3://awares/mini").splitlines() == [
        "| policy |",
        "",
        "2,048 held-out questions, greedy, seed 0.",
        "evaluate: 2 policies on 2,048 questions in 155 s, 3 unusable questions",
        "results: runs/mini/evaluate/results.json and "
        "s3://awares/mini/runs/mini/evaluate/results.json",
    ]
