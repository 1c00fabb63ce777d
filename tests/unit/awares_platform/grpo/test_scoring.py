import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from awares.episode import Episode, StopReason
from awares.reward import CropReward, RewardValue
from awares.sample import Label, Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.batch_scale import batch_scaled
from awares_platform.grpo.group import Group, GroupRollout, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.scoring import Scoring, grouped

SAMPLE = Sample("s0", "ab" * 32, "digit?", "7", label=Label.HR)
MakeEpisode = Callable[..., Episode]


def half(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    return [1.0 if answer == truth else 0.5 for answer, truth in zip(answers, truths, strict=True)]


def score(episodes: Sequence[Episode], **settings: object) -> Group:
    scoring = Scoring(CropReward(half), GrpoConfig.model_validate({"std_eps": 1e-9, **settings}))
    return scoring(Prompt(0, 0, SAMPLE), GroupRollout(tuple(episodes), 10.0, 12.5))


@pytest.fixture
def failed(make_episode: MakeEpisode) -> Episode:
    return replace(
        make_episode(), turns=(), answer=None, stop=StopReason.ERROR, error="EngineDead: gone"
    )


def test_rewards_costs_and_advantages_of_a_group(
    call_episode: Episode, make_episode: MakeEpisode
) -> None:
    group = score([call_episode, make_episode(answer="7"), make_episode(answer="3")])
    rewards = [member.reward.total for member in group.members]
    # The label of the sample is HR. Only the first of the three episodes requests crops.
    assert rewards == pytest.approx([10 - 0.25 - 0.01 * 0.75, 10 - 2, 5 - 2])
    assert [member.correct for member in group.members] == [True, True, False]
    mean = sum(rewards) / 3
    std = (sum((reward - mean) ** 2 for reward in rewards) / 2) ** 0.5
    assert [member.advantage for member in group.members] == pytest.approx(
        [(reward - mean) / std for reward in rewards]
    )
    assert (group.outcome, group.seconds) == (Outcome.READY, 2.5)


def test_advantages_are_scaled_by_the_rewards_of_the_whole_batch(
    make_episode: MakeEpisode, failed: Episode
) -> None:
    settings = GrpoConfig(advantage_scale="batch", std_eps=0.5)
    alike, other = make_episode(answer="7"), make_episode(answer="3")
    groups = [
        score([alike, other, failed], advantage_scale="batch"),
        score([alike, alike], advantage_scale="batch"),
    ]
    # The rewards 8, 3, 8 and 8 have the mean 6.75, and the standard deviation 2.5. The divisor is
    # 3, because `std_eps` is 0.5.
    batch = batch_scaled(StepBatch(0, tuple(groups), Position(2)), settings)
    found = [[member.advantage for member in group.members] for group in batch.groups]
    assert found == [[pytest.approx(2.5 / 3), pytest.approx(-2.5 / 3), None], [0.0, 0.0]]
    again = GrpoConfig(advantage_scale="none")
    assert batch_scaled(batch, again) is batch


def test_advantages_may_stay_unscaled(make_episode: MakeEpisode) -> None:
    group = score([make_episode(answer="7"), make_episode(answer="3")], advantage_scale="none")
    assert [member.advantage for member in group.members] == [2.5, -2.5]


def test_failed_episodes_are_left_out_of_the_statistics(
    make_episode: MakeEpisode, failed: Episode
) -> None:
    group = score([make_episode(answer="7"), failed, make_episode(answer="3")])
    assert [member.advantage for member in group.members] == pytest.approx(
        [0.5**0.5, None, -(0.5**0.5)]
    )
    assert group.outcome is Outcome.READY


def test_failed_episodes_can_be_penalised(make_episode: MakeEpisode, failed: Episode) -> None:
    group = score([make_episode(answer="7"), failed], errors="penalise", error_reward=-4.0)
    assert [member.reward.total for member in group.members] == [8.0, -4.0]
    assert [member.advantage for member in group.members] == pytest.approx([0.5**0.5, -(0.5**0.5)])


def test_one_usable_episode_is_no_group(make_episode: MakeEpisode, failed: Episode) -> None:
    assert score([make_episode(), failed]).outcome is Outcome.FAILED
    # Neither episode has a sampled token, so the group is useless even with penalties.
    assert score([failed, failed], errors="penalise").outcome is Outcome.FAILED


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["reward", "logprob"])
def test_a_group_with_a_value_that_is_not_finite_is_not_learned_from(
    make_episode: MakeEpisode, place: str, wrong: float
) -> None:
    def reward(episodes: Sequence[Episode], _: Sequence[Sample]) -> list[RewardValue]:
        totals = [wrong if place == "reward" else 2.0, 1.0, 0.0]
        return [RewardValue(total, {}) for total in totals]

    episodes = [make_episode() for _ in range(3)]
    if place == "logprob":
        first, *others = episodes[0].turns
        spoilt = replace(first, logprobs=(wrong,) * len(first.logprobs))
        episodes[0] = replace(episodes[0], turns=(spoilt, *others))
    scoring = Scoring(reward, GrpoConfig())
    group = scoring(Prompt(0, 0, SAMPLE), GroupRollout(tuple(episodes), 0.0, 1.0))
    assert group.outcome is Outcome.NONFINITE
    assert [member.advantage for member in group.members] == [None] * 3
    assert str(wrong) in group.nonfinite


def test_the_reward_of_a_failed_episode_does_not_matter(
    make_episode: MakeEpisode, failed: Episode
) -> None:
    def reward(episodes: Sequence[Episode], _: Sequence[Sample]) -> list[RewardValue]:
        return [RewardValue(math.nan if one is failed else 1.0, {}) for one in episodes]

    scoring = Scoring(reward, GrpoConfig())
    rollout = GroupRollout((make_episode(), failed, make_episode()), 0.0, 1.0)
    assert scoring(Prompt(0, 0, SAMPLE), rollout).outcome is Outcome.READY


def test_the_reward_does_not_see_a_prompt_that_cannot_be_played(failed: Episode) -> None:
    def reward(episodes: Sequence[Episode], samples: Sequence[Sample]) -> list[RewardValue]:
        raise AssertionError("called")

    scoring = Scoring(reward, GrpoConfig(errors="penalise"))
    rollout = GroupRollout((failed,), 10.0, 12.5, fault="shorten the question")
    group = scoring(Prompt(0, 0, SAMPLE), rollout)
    assert (group.outcome, group.oldest, group.fault) == (
        Outcome.UNPLAYABLE,
        None,
        "EngineDead: gone",
    )
    assert [member.advantage for member in group.members] == [None]


def test_unfinished_episodes_are_neither_rewarded_nor_grouped(make_episode: MakeEpisode) -> None:
    seen: list[Episode] = []

    def reward(episodes: Sequence[Episode], samples: Sequence[Sample]) -> list[RewardValue]:
        seen.extend(episodes)
        return [RewardValue(1.0, {}) for _ in samples]

    cut = GroupRollout((make_episode(), make_episode(0, None, StopReason.UNFINISHED)), 10.0, 12.5)
    with pytest.raises(AssertionError, match="an unfinished episode has no reward"):
        Scoring(reward, GrpoConfig())(Prompt(0, 0, SAMPLE), cut)
    values_G = [RewardValue(1.0, {})] * 2
    with pytest.raises(AssertionError, match="an unfinished episode has no reward"):
        grouped(Prompt(0, 0, SAMPLE), cut, values_G, GrpoConfig())
    assert not seen


def test_equal_rewards_are_left_out_only_if_asked(make_episode: MakeEpisode) -> None:
    episodes = [make_episode(), make_episode()]
    assert score(episodes).outcome is Outcome.READY
    assert [member.advantage for member in score(episodes).members] == [0.0, 0.0]
    assert score(episodes, drop_uniform_groups=True).outcome is Outcome.UNIFORM
