"""Tests that the controller passes on the episodes of actors without unpacking them.

Unpacking the episodes of 800 groups per second would use 10 % of a CPU core.
"""

import pickle
from collections.abc import Callable, Sequence

import pytest

from awares.episode import Episode
from awares.passes import PassBudget
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import GroupRollout, Position
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.scoring import grouped
from awares_platform.grpo.shard import shards
from awares_platform.grpo.unusable import UnusableGroups

VALUES = [RewardValue(9.75, {"answer": 10.0}), RewardValue(0.5, {"answer": 0.5})]


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each unpacking of an episode adds the id of the episode's sample."""
    found: list[str] = []
    unpack = Episode.unpack

    def counted(episode: Episode, name: str) -> object:
        found.append(episode.sample_id)
        return unpack(episode, name)

    monkeypatch.setattr(Episode, "unpack", counted)
    return found


def sent(episodes: Sequence[Episode]) -> GroupRollout:
    """Return the episodes as they arrive from an actor."""
    return pickle.loads(pickle.dumps(GroupRollout(tuple(episodes), 0.0, 2.5)))


def test_only_threads_unpack_episodes_and_only_once(
    samples: list[Sample],
    call_episode: Episode,
    make_episode: Callable[..., Episode],
    unpacked: list[str],
) -> None:
    buffer = EpisodeBuffer(Prompts(samples, 0), groups_per_step=1, bound=4)
    buffer.restore(Position(), [], Lineage())
    rollout = sent((call_episode, make_episode(version=3)))
    assert not rollout.unfinished and rollout.sampled
    group = grouped(buffer.issue(), rollout, VALUES, GrpoConfig())
    UnusableGroups(samples=5, most=2).check(group)
    assert buffer.add(group) and buffer.full(version=4)
    assert group.versions == {3, 4} and not group.nonfinite
    for_reward = pickle.loads(pickle.dumps((samples[0], group.episodes)))
    batch = buffer.take(step=0, version=4)
    assert unpacked == []
    [shard] = shards(batch, 1, 1, PassBudget(8, 0, False))
    assert unpacked == ["s0", "s0"]
    received = pickle.loads(pickle.dumps(shard))
    assert unpacked == ["s0", "s0"]
    assert received == shard and for_reward[1] == (call_episode, make_episode(version=3))
