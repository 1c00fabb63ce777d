"""Tests the journal that stores the episodes of a GRPO run in a real store."""

import asyncio
import io
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from awares.episode import Episode, StopReason, Turn
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.config import PlatformConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.data.dataset import write_samples
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Position, Prompt
from awares_platform.grpo.job import ControllerActor, journal_of
from awares_platform.grpo.journal import Journal, Recovered
from awares_platform.grpo.segment import Training, decode
from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed, StoreUnavailable
from tests.integration.fault import Fault, LostReply, Reset
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults
from tests.unit.awares_platform.grpo.stage import Stage

pytestmark = pytest.mark.integration
START = "9c0e"
"""The digest of the run's recipe, which includes the starting policy."""


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


def groups_of(journal: Journal, position: Position | None = None) -> list[Group]:
    return list(journal.read(position).groups)


def test_the_groups_that_a_journal_returns_are_packed(
    seaweed: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(seaweed, "journal-packed", START).append([group(0), group(1)])
    found = Journal(seaweed, "journal-packed", START).read().groups
    monkeypatch.delattr(Episode, "pack")
    assert [one.versions for one in found] == [{0}, {0}]


def trained(step: int, *numbers: int) -> Training:
    return Training(step, step, tuple((number, 0) for number in numbers), numbers[-1] + 1)


def test_a_successor_reads_everything_and_goes_on_behind_it(seaweed: ObjectStore) -> None:
    first = Journal(seaweed, "journal-a", START)
    assert groups_of(first) == []
    first.append([group(1), group(0)])
    first.append([])  # An empty list writes no file.
    first.append([group(2), group(1, attempt=1)])
    second = Journal(seaweed, "journal-a", START)
    assert groups_of(second) == [group(0), group(1, attempt=1), group(2)]
    second.append([group(3)])
    assert [info.key for info in seaweed.list("runs/journal-a/episodes/")] == [
        f"runs/journal-a/episodes/9c0e/0000000{index}.parquet" for index in range(3)
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
    seaweed.put("runs/journal-c/episodes/9c0e/00000000.parquet", b"rubbish")
    successor = Journal(seaweed, "journal-c", START)
    with caplog.at_level(logging.WARNING):
        assert groups_of(successor) == [group(1)]
    assert "runs/journal-c/episodes/9c0e/00000000.parquet" in caplog.text
    successor.append([group(0)])
    assert groups_of(successor) == [group(0), group(1)]


@pytest.mark.parametrize(("column", "value"), [("outcome", "odd"), ("sample", "{")])
def test_a_group_that_cannot_be_decoded_is_left_out(
    seaweed: ObjectStore, caplog: pytest.LogCaptureFixture, column: str, value: str
) -> None:
    """The file itself is sound, so the fault shows only when the group is decoded."""
    run, key = f"journal-{column}", f"runs/journal-{column}/episodes/9c0e/00000000.parquet"
    Journal(seaweed, run, START).append([group(0), group(1)])
    table = pq.read_table(io.BytesIO(seaweed.get(key)))
    values = table[column].to_pylist()
    place = table.schema.get_field_index(column)
    damaged = pa.array([value, value, *values[2:]], table.schema.field(column).type)
    changed = io.BytesIO()
    pq.write_table(table.set_column(place, table.schema.field(column), damaged), changed)
    seaweed.put(key, changed.getvalue())
    with caplog.at_level(logging.WARNING):
        assert Journal(seaweed, run, START).read() == Recovered((group(1),), {0: 0})
    assert key in caplog.text


def test_groups_of_another_start_are_skipped_and_counted(
    seaweed: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    old = Journal(seaweed, "journal-d", START)
    old.append([group(0), group(1)])
    old.append([group(2)])
    retrained = Journal(seaweed, "journal-d", "77ab")
    with caplog.at_level(logging.WARNING):
        assert groups_of(retrained) == []
    assert "2 segments come from another recipe" in caplog.text
    retrained.append([group(1, attempt=1)])
    assert groups_of(Journal(seaweed, "journal-d", "77ab")) == [group(1, attempt=1)]
    assert groups_of(Journal(seaweed, "journal-d", START)) == [group(0), group(1), group(2)]


def test_a_resumed_run_reads_only_the_segments_since_its_checkpoint(seaweed: ObjectStore) -> None:
    journal = Journal(seaweed, "journal-e", START)
    for step in range(20):
        numbers = range(2 * step, 2 * step + 2)
        journal.append([group(number) for number in numbers], trained(step, *numbers))
    journal.append([group(40)])
    with proxy(seaweed) as faults:
        successor = Journal(faults.store, "journal-e", START)
        found = groups_of(successor, Position(34, (36,)))
        assert [one.prompt.number for one in found] == [34, 35, 37, 38, 39, 40]
        read = [request for request in faults.requests if request.key.endswith(".parquet")]
        # The journal reads the newest file first. It stops at the file with the prompts 32 and 33,
        # because they come before the position 34.
        assert len(read) == 5
        successor.append([group(41)])
    assert groups_of(Journal(seaweed, "journal-e", START), Position(40)) == [group(40), group(41)]


def test_a_group_that_is_too_stale_is_named_but_not_decoded(seaweed: ObjectStore) -> None:
    journal = Journal(seaweed, "journal-f", START)
    journal.append([group(0, attempt=4), group(1)])
    found = journal.read(stale=lambda sampled: 4 in sampled)
    assert found == Recovered((group(1),), {0: 4})


def test_the_journal_says_which_step_trained_a_group(seaweed: ObjectStore) -> None:
    journal = Journal(seaweed, "journal-g", START)
    journal.append([group(0), group(1), group(2)], trained(0, 0, 1))
    journal.append([group(3)], trained(1, 2, 3))
    successor = Journal(seaweed, "journal-g", START)
    successor.read()
    # The learner has restarted, and takes step 1 again, on an older group and a new one.
    again = Training(1, 7, ((3, 0), (4, 0)), 5)
    successor.append([group(4)], again)
    assert successor.trainings() == {0: trained(0, 0, 1), 1: again}


def test_no_prompt_and_attempt_is_held_twice(seaweed: ObjectStore) -> None:
    journal = Journal(seaweed, "journal-h", START)
    journal.append([group(0), group(1)])
    journal.append([group(1), group(1, attempt=1)])
    successor = Journal(seaweed, "journal-h", START)
    successor.read()
    successor.append([group(0), group(2)])
    held = [
        (row.prompt.number, row.prompt.attempt)
        for info in seaweed.list("runs/journal-h/episodes/")
        for row in decode(seaweed.get(info.key), info.key).groups
    ]
    assert held == [(0, 0), (1, 0), (1, 1), (2, 0)]


def cut(number: int, count: int) -> Group:
    """Return an unfinished group whose only episode has `count` sampled tokens."""
    [member, *_] = group(number).members
    turn = replace(
        member.episode.turns[0],
        sampled_ids=(5,) * count,
        logprobs=(-0.5,) * count,
        versions=(3,) * count,
        stop=StopReason.UNFINISHED,
    )
    episode = replace(member.episode, turns=(turn,), stop=StopReason.UNFINISHED, answer=None)
    rollout = GroupRollout((episode,), started=1.0, ended=2.0)
    return Group.unfinished(group(number).prompt, rollout)


def test_the_latest_unfinished_group_counts_until_its_prompt_is_finished(
    seaweed: ObjectStore,
) -> None:
    journal = Journal(seaweed, "journal-u", START)
    journal.append([cut(0, 1), cut(1, 1), cut(2, 1)])
    journal.append([cut(0, 4), group(1)], trained(0, 1))
    assert groups_of(Journal(seaweed, "journal-u", START)) == [cut(0, 4), group(1), cut(2, 1)]
    successor = Journal(seaweed, "journal-u", START)
    successor.read()
    successor.append([group(0), group(1), cut(2, 1)])
    successor.append([group(0), group(2)])
    assert groups_of(Journal(seaweed, "journal-u", START)) == [group(0), group(1), group(2)]
    held = [
        [one.prompt.number for one in decode(seaweed.get(info.key), info.key).groups]
        for info in seaweed.list("runs/journal-u/episodes/")
    ]
    # Each list has the groups of one file. A finished group is written once. An unfinished group is
    # written each time that an actor hands it back.
    assert held == [[0, 1, 2], [0, 1], [0, 2], [2]]


def test_an_unfinished_group_that_is_too_stale_is_not_continued(seaweed: ObjectStore) -> None:
    journal = Journal(seaweed, "journal-v", START)
    journal.append([cut(0, 1), cut(1, 1)])
    assert journal.read(stale=lambda sampled: 3 in sampled) == Recovered((), {0: 0, 1: 0})


@pytest.mark.parametrize("fault", [LostReply(), Reset()])
def test_a_write_that_failed_is_repeated_and_blames_nobody(
    seaweed: ObjectStore, fault: Fault
) -> None:
    """With the fault LostReply, the write reaches the store, although `append` raises an error."""
    name = f"journal-{type(fault).__name__.lower()}"
    with proxy(seaweed, retry_budget_s=0.5) as faults:
        journal = Journal(faults.store, name, START)
        faults.on("*.parquet", fault=fault)
        with pytest.raises(StoreUnavailable):
            journal.append([group(0)])
        faults.clear()
        journal.append([group(0), group(1)])
        assert groups_of(journal) == [group(0), group(1)]
        assert len([*seaweed.list(f"runs/{name}/episodes/")]) == 2


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
        found = re.search(r"(\d+) of \d+ groups ready", caplog.text)
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


def test_a_run_survives_an_outage_of_its_store(seaweed: ObjectStore) -> None:
    """A real controller and a real journal take eight steps, without an engine or a learner."""
    samples = [Sample(f"s{number}", "ab" * 32, "digit?", "7") for number in range(5)]

    async def scene(store: ObjectStore, faults: Faults) -> None:
        journal: Any = Journal(store, "journal-o", START)
        acted = Stage(samples, lambda version: group(0, version).members[0].episode, journal)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        for step in range(8):
            if step == 3:
                faults.on(fault=Reset())
                asyncio.get_running_loop().call_later(3.0, faults.clear)
            assert await acted.step(step, step) is not None
        await acted.controller.close()
        await running

    with proxy(seaweed, retry_budget_s=20.0) as faults:
        asyncio.run(asyncio.wait_for(scene(faults.store, faults), 60))
    journal = Journal(seaweed, "journal-o", START)
    taken = [pair for record in journal.trainings().values() for pair in record.groups]
    assert taken == [(number, 0) for number in range(16)]
    assert {(number, 0) for number in range(16)} <= {
        (one.prompt.number, one.prompt.attempt) for one in groups_of(journal)
    }
