"""Tests the journal that stores the episodes of a GRPO run in a real store."""

import logging

import pytest

from awares.episode import Episode, StopReason, Turn
from awares.reward import RewardValue
from awares.sample import Sample
from awares.view import View
from awares_platform.grpo.group import Group, Member, Outcome, Prompt
from awares_platform.grpo.journal import Journal
from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed

pytestmark = pytest.mark.integration


def group(number: int, attempt: int = 0) -> Group:
    turn = Turn(
        (1, 9, 2),
        (View(None),),
        (5, 6),
        (-0.1, -0.25),
        (attempt, attempt),
        "7",
        (),
        StopReason.ANSWER,
    )
    episode = Episode("s0", "ab" * 32, (112, 112), (turn,), "7", StopReason.ANSWER, 4, 0.25, 0.25)
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
    first = Journal(seaweed, "journal-a")
    assert first.read() == []
    first.append([group(1), group(0)])
    first.append([])  # An empty list adds no segment.
    first.append([group(2), group(1, attempt=1)])
    second = Journal(seaweed, "journal-a")
    assert second.read() == [group(0), group(1, attempt=1), group(2)]
    second.append([group(3)])
    assert [info.key.rsplit("/", 1)[-1] for info in seaweed.list("runs/journal-a/episodes/")] == [
        f"0000000{index}.parquet" for index in range(3)
    ]


def test_the_later_of_two_controllers_fails(seaweed: ObjectStore) -> None:
    first, second = Journal(seaweed, "journal-b"), Journal(seaweed, "journal-b")
    first.append([group(0)])
    with pytest.raises(PreconditionFailed, match="another grpo job writes this run"):
        second.append([group(1)])


def test_a_damaged_segment_is_reported_and_skipped(
    seaweed: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(seaweed, "journal-c")
    journal.append([group(0)])
    journal.append([group(1)])
    seaweed.put("runs/journal-c/episodes/00000000.parquet", b"rubbish")
    successor = Journal(seaweed, "journal-c")
    with caplog.at_level(logging.WARNING):
        assert successor.read() == [group(1)]
    assert "runs/journal-c/episodes/00000000.parquet" in caplog.text
    successor.append([group(0)])
    assert successor.read() == [group(0), group(1)]
