"""Tests that writes to the journal never overlap, and that a failed write loses no group."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from awares.sample import Sample
from awares_platform.grpo.group import Group, Position, Prompt
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.recorder import Recorder
from awares_platform.store.errors import StoreUnavailable
from tests.unit.awares_platform.grpo.stage import MemoryJournal, play, until


class HeldJournal(MemoryJournal):
    """A fake journal whose writes wait for `may_write`. A write that overlaps another one fails."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write, self.writing = threading.Event(), threading.Semaphore(1)
        self.begun = 0

    def append(self, groups: Sequence[Group], training: Any = None) -> None:
        self.begun += 1
        assert self.writing.acquire(blocking=False), "two writes overlap"
        assert self.may_write.wait(10)
        super().append(groups, training)
        self.writing.release()


def test_a_cancelled_flush_goes_on_and_the_next_one_waits_for_it(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    async def scene() -> None:
        held: Any = HeldJournal()
        recorder = Recorder(held)
        recorder.add(make_group(Prompt(0, 0, samples[0])))
        first = asyncio.create_task(recorder.flush())
        await until(lambda: held.begun == 1)
        first.cancel()
        recorder.add(make_group(Prompt(1, 0, samples[1])))
        second = asyncio.create_task(recorder.flush())
        await asyncio.sleep(0.05)
        assert held.begun == 1
        held.may_write.set()
        await second
        assert [group.prompt.number for group in held.groups] == [0, 1]

    play(scene())


def test_groups_of_a_failed_write_are_read_and_written_again(
    make_group: Callable[..., Group], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        held: Any = MemoryJournal()
        recorder = Recorder(held)
        recorder.add(make_group(Prompt(0, 0, samples[0])))
        with monkeypatch.context() as patch:
            patch.setattr(held, "append", _fail)
            with pytest.raises(StoreUnavailable):
                await recorder.flush()
            await recorder.finish()
        _, found = await recorder.read(Position(), Lineage(), 1)
        assert [group.prompt.number for group in found.groups] == [0]
        await recorder.flush()
        assert [group.prompt.number for group in held.groups] == [0]
        await recorder.flush()
        assert len(held.groups) == 1

    play(scene())


def _fail(*_: object) -> None:
    raise StoreUnavailable("s3://b/x: unavailable")
