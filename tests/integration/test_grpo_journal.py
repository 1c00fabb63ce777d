"""Tests the journal that stores the episodes of a GRPO run in a real store."""

import asyncio
import logging
import re
from pathlib import Path

import pytest

from awares.episode import Episode, StopReason, Turn
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.config import PlatformConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.data.dataset import write_samples
from awares_platform.grpo.group import Group, Member, Outcome, Position, Prompt
from awares_platform.grpo.job import ControllerActor, journal_of
from awares_platform.grpo.journal import Journal
from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed

pytestmark = pytest.mark.integration
START = "9c0e"
"""The digest of the starting policy."""


def group(number: int, attempt: int = 0) -> Group:
    turn = Turn(
        context_ids=(1, 9, 2),
        views=(View(None),),
        sampled_ids=(5, 6),
        logprobs=(-0.1, -0.25),
        versions=(attempt, attempt),
        text="7",
        crops=(),
        stop=StopReason.ANSWER,
    )
    episode = Episode(
        sample_id="s0",
        image="ab" * 32,
        image_size=(112, 112),
        turns=(turn,),
        answer="7",
        stop=StopReason.ANSWER,
        visual_tokens=4,
        rtr_token=0.25,
        rtr_pixel=0.25,
    )
    prompt = Prompt(number, 0, Sample("s0", "ab" * 32, "digit?", "7"), attempt)
    return Group(
        prompt,
        (
            Member(episode, RewardValue(1.0, {"answer": 1.0}), True, 0.5),
            Member(episode, RewardValue(0.0, {"answer": 0.0}), False, -0.5),
        ),
        Outcome.READY,
    )


def test_a_successor_reads_everything_and_goes_on_behind_it(seaweed: ObjectStore) -> None:
    first = Journal(seaweed, "journal-a", START)
    assert first.read() == []
    first.append([group(1), group(0)])
    first.append([])  # An empty list writes no file.
    first.append([group(2), group(1, attempt=1)])
    second = Journal(seaweed, "journal-a", START)
    assert second.read() == [group(0), group(1, attempt=1), group(2)]
    second.append([group(3)])
    assert [info.key.rsplit("/", 1)[-1] for info in seaweed.list("runs/journal-a/episodes/")] == [
        f"0000000{index}.parquet" for index in range(3)
    ]


def test_the_later_of_two_controllers_fails(seaweed: ObjectStore) -> None:
    first, second = Journal(seaweed, "journal-b", START), Journal(seaweed, "journal-b", START)
    first.append([group(0)])
    with pytest.raises(PreconditionFailed, match="another grpo job writes this run"):
        second.append([group(1)])


def test_a_damaged_segment_is_reported_and_skipped(
    seaweed: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(seaweed, "journal-c", START)
    journal.append([group(0)])
    journal.append([group(1)])
    seaweed.put("runs/journal-c/episodes/00000000.parquet", b"rubbish")
    successor = Journal(seaweed, "journal-c", START)
    with caplog.at_level(logging.WARNING):
        assert successor.read() == [group(1)]
    assert "runs/journal-c/episodes/00000000.parquet" in caplog.text
    successor.append([group(0)])
    assert successor.read() == [group(0), group(1)]


def test_groups_of_another_start_are_skipped_and_counted(
    seaweed: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    old = Journal(seaweed, "journal-d", START)
    old.append([group(0), group(1)])
    old.append([group(2)])
    retrained = Journal(seaweed, "journal-d", "77ab")
    with caplog.at_level(logging.WARNING):
        assert retrained.read() == []
    assert "3 groups come from another starting policy" in caplog.text
    retrained.append([group(1, attempt=1)])
    assert Journal(seaweed, "journal-d", "77ab").read() == [group(1, attempt=1)]
    assert Journal(seaweed, "journal-d", START).read() == [group(0), group(1), group(2)]


def test_a_run_does_not_learn_from_the_episodes_of_another_start(
    store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The learner ends before its first checkpoint, and then the starting policy changes."""
    weights = tmp_path / "base" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    config = PlatformConfig(
        store=store.config,
        policy=PolicyConfig(base=str(weights.parent)),
        grpo=GrpoConfig.model_validate({"start": "base"}),
    )

    async def ready() -> int:
        """Return the number of groups that are ready when a new learner attaches."""
        controller = ControllerActor()
        await controller.open(config)
        with caplog.at_level(logging.INFO):
            caplog.clear()
            await controller.attach(1, Position())
        found = re.search(r"(\d+) groups ready", caplog.text)
        assert found
        return int(found[1])

    write_samples(
        store,
        config.data.curated,
        "train",
        [Sample("s0", "ab" * 32, "digit?", "7", label=Label.LR)],
    )
    journal_of(config, store).append([group(0), group(1)])
    assert asyncio.run(ready()) == 2
    weights.write_bytes(b"retrained")
    assert asyncio.run(ready()) == 0
