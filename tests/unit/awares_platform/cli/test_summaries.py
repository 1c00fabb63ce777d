"""Tests that the summary of a training job ends with the address of the trained policy."""

from dataclasses import replace

import pytest

from awares_platform.grpo.job import GrpoResult
from awares_platform.grpo.supervisor import step_note
from awares_platform.sft.job import SftResult

SFT = SftResult("runs/mini/policies/sft", 368, 0, {"loss/sft": 0.1}, wall_s=280.4)
GRPO = GrpoResult("runs/mini/policies/awares", 120, 120, {"reward/mean": 9.1}, wall_s=404.2)
LEFT_OUT = replace(GRPO, metrics={"reward/mean": 9.1, "data/unplayable": 3.0})
EARLIER = GrpoResult("runs/mini/policies/awares", 120, 120, {}, wall_s=0.1)


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (SFT, ["sft: finished 368 steps in 280 s", "policy: s3://a/b/runs/mini/policies/sft"]),
        (GRPO, ["grpo: finished 120 steps in 404 s", "policy: s3://a/b/runs/mini/policies/awares"]),
        (
            LEFT_OUT,
            [
                "grpo: finished 120 steps in 404 s, 3 questions left out because they cannot be "
                "played",
                "policy: s3://a/b/runs/mini/policies/awares",
            ],
        ),
        (
            replace(GRPO, best=80),
            [
                "grpo: finished 120 steps in 404 s; the best policy is that of step 80",
                "policy: s3://a/b/runs/mini/policies/awares",
            ],
        ),
        (
            EARLIER,
            [
                "grpo: finished 120 steps by an earlier job",
                "policy: s3://a/b/runs/mini/policies/awares",
            ],
        ),
    ],
    ids=["sft", "grpo", "left out", "best", "earlier"],
)
def test_the_policy_is_named_with_its_address(
    result: SftResult | GrpoResult, lines: list[str]
) -> None:
    assert result.summary("s3://a/b").splitlines() == lines


def test_the_line_of_a_step_says_what_was_learned_and_how_busy_all_parts_were() -> None:
    learned = {"reward/mean": 9.674, "accuracy/train": 0.941, "policy/kl": 0.033}
    times = {"time/wait": 0.5, "time/learn": 4.25, "time/publish": 0.25}
    shares = {"engine/busy": 0.973, "learner/busy": 0.85, "rtr/pixel": 0.4}
    assert step_note(learned | times | shares) == (
        "reward 9.674, accuracy 0.941, KL 0.033, 5.0 s, engines 97% busy, learner 85% busy"
    )
