"""Tests the queue that holds the metrics of finished steps until the driver has written them."""

import asyncio

from awares_platform.grpo.step_rows import StepRow, StepRows
from tests.unit.awares_platform.grpo.stage import play

ROWS: list[StepRow] = [(step, {"reward/mean": float(step)}) for step in range(3)]


def test_a_row_whose_request_was_cancelled_is_returned_again() -> None:
    async def scene() -> None:
        rows = StepRows()
        cancelled = asyncio.create_task(rows.next(0))
        await asyncio.sleep(0)
        await rows.put(ROWS[0])
        assert await cancelled == ROWS[0]
        assert await rows.next(0) == ROWS[0]

    play(scene())


def test_written_rows_are_forgotten_and_a_late_request_takes_none() -> None:
    async def scene() -> None:
        rows = StepRows()
        for row in ROWS:
            await rows.put(row)
        assert [await rows.next(count) for count in (0, 1, 2)] == ROWS
        assert await rows.next(1) == ROWS[2]

    play(scene())


def test_a_checkpoint_waits_until_the_earlier_rows_are_written() -> None:
    async def scene() -> None:
        rows = StepRows()
        await rows.put(ROWS[0])
        await rows.next(0)
        waiting = asyncio.create_task(rows.written())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await rows.put(ROWS[1])
        await rows.next(1)
        await asyncio.wait_for(waiting, 1)

    play(scene())


def test_the_end_of_the_run_ends_all_waiting() -> None:
    async def scene() -> None:
        rows = StepRows()
        await rows.put(ROWS[0])
        waiting = asyncio.create_task(rows.written())
        await rows.close()
        await asyncio.wait_for(waiting, 1)
        assert await rows.next(0) == ROWS[0]
        assert await rows.next(1) is None

    play(scene())
