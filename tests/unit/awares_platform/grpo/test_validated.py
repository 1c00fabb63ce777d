"""Tests how validation measures a version, and which version is the best."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from awares.episode import Episode, StopReason
from awares.evaluation.scorers import exact, score_answer
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.config.validation import ValidationConfig
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Prompt
from awares_platform.grpo.validated import DueVersion, Validated, better, declined, measured, tied
from awares_platform.method.play import Played

JUDGE = partial(score_answer, default=exact, version="2026-08")
REWARDS = {"1": 10.0, "2": 8.0, "nan": math.nan}


def version(
    number: int, values: list[float], rtr: float = 0.4, train_reward: float | None = None
) -> Validated:
    mean = sum(values) / len(values)
    by_question = {str(index): value for index, value in enumerate(values)}
    return Validated(
        10 * number,
        number,
        reward=mean,
        accuracy=mean,
        rtr_token=rtr,
        call_rate=0.5,
        values=by_question,
        train_reward=train_reward,
    )


async def score(prompt: Prompt, rollout: GroupRollout) -> Group:
    [episode] = rollout.episodes
    value = RewardValue(REWARDS[episode.answer or ""], {})
    return Group(prompt, (Member(episode, value, False, None),), Outcome.FAILED)


@pytest.mark.parametrize(("metric", "values"), [("reward", [10.0, 8.0]), ("accuracy", [1.0, 0.0])])
def test_a_version_is_measured_by_reward_score_tokens_and_calls(
    metric: str, values: list[float], make_episode: Callable[..., Episode], call_episode: Episode
) -> None:
    samples = [Sample(f"s{number}", "ab" * 32, "?", "1") for number in range(5)]
    failed = make_episode(answer=None, stop=StopReason.ERROR)
    played = [
        Played(samples[0], make_episode(answer="1"), 0.0, ""),
        Played(samples[1], replace(call_episode, answer="2"), 0.0, ""),
        Played(samples[2], make_episode(answer="nan"), 0.0, ""),
        Played(samples[3], failed, 0.0, "the engine failed"),
        Played(samples[4], None, 0.0, "no such image"),
    ]
    settings = ValidationConfig.model_validate({"metric": metric})
    found = asyncio.run(measured(DueVersion(20, 21), played, score, JUDGE, settings))
    by_question = dict(zip(("s0", "s1"), values, strict=True))
    assert found == Validated(20, 21, 9.0, 0.5, 0.625, 0.5, values=by_question)
    assert asyncio.run(measured(DueVersion(20, 21), played[2:], score, JUDGE, settings)) is None


def test_the_highest_mean_wins_and_a_tie_goes_to_fewer_visual_tokens_and_then_to_the_newer() -> (
    None
):
    low, high = version(1, [1.0, 2.0, 3.0, 4.0]), version(2, [2.0, 3.0, 4.0, 5.0])
    assert better(None, low, []) is low
    assert better(low, high, []) is high and better(high, low, []) is high
    # One of four questions differs by 1, so the mean difference equals its standard error,
    # which counts as a tie.
    near = version(3, [2.0, 3.0, 4.0, 4.0])
    assert tied(near, high) and not tied(low, high)
    assert better(high, near, []) is near
    assert better(high, replace(near, rtr_token=0.41), []) is high
    assert better(replace(near, rtr_token=0.3), high, []).version == near.version


def test_ties_do_not_add_up_to_a_clear_loss() -> None:
    top = version(1, [5.0, 5.0, 5.0, 5.0], rtr=0.5)
    near = version(2, [5.0, 5.0, 5.0, 4.0], rtr=0.4)
    third = version(3, [5.0, 5.0, 4.0, 4.0], rtr=0.3)
    assert better(top, near, []) is near
    # The third version is tied with the second, but clearly worse than the first.
    assert tied(third, near) and not tied(third, top)
    assert better(near, third, [top]) is near


def test_a_start_that_no_version_reaches_does_not_keep_the_worse_version() -> None:
    start = replace(version(1, [9.0, 9.0, 9.0, 9.0]), step=0)
    worse, good = version(2, [1.0, 2.0, 1.0, 2.0]), version(3, [5.0, 6.0, 5.0, 6.0])
    assert better(worse, good, [start]) is good and better(good, worse, [start]) is good


def test_a_decline_is_a_loss_of_accuracy_while_the_training_reward_rises() -> None:
    before = [version(1, [0.9, 0.9], train_reward=9.0), version(2, [0.8, 0.8], train_reward=9.5)]
    assert declined(version(3, [0.7, 0.7], train_reward=9.2), before) == pytest.approx(0.2)
    assert declined(version(3, [0.7, 0.7], train_reward=8.9), before) == 0
    assert declined(version(3, [0.95, 0.95], train_reward=9.9), before) == 0
    assert declined(version(3, [0.7, 0.7]), before) == 0
    assert declined(version(3, [0.7, 0.7], train_reward=9.2), []) == 0
