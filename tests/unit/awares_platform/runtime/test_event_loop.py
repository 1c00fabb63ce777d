"""Tests that a signal cancels the tasks of an event loop, and that each later signal does, too."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from awares_platform.runtime import event_loop


@pytest.fixture
def sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, as a session does."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    yield
    signal.signal(signal.SIGTERM, before)


def strike(number: signal.Signals) -> None:
    """Send a signal to this process while its event loop runs no task."""
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)


async def slow(ended: list[str], further: list[signal.Signals]) -> None:
    """Wait until the task is cancelled len(`further`) + 1 times.

    After each cancellation except the last, send the next signal of `further`.
    """
    for number in further:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        strike(number)
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("slow")


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize(
    ("signals", "error"),
    [
        ([signal.SIGTERM], SystemExit),
        ([signal.SIGTERM] * 2, SystemExit),
        ([signal.SIGTERM] * 4, SystemExit),
        ([signal.SIGINT] * 3, KeyboardInterrupt),
        ([signal.SIGTERM, signal.SIGINT, signal.SIGTERM], SystemExit),
    ],
    ids=str,
)
def test_no_signal_abandons_a_task(
    signals: list[signal.Signals], error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    first, *further = signals
    ended: list[str] = []

    async def work() -> None:
        helper = asyncio.ensure_future(slow(ended, further))
        strike(first)
        await helper

    with pytest.raises(error):
        event_loop.run(work())
    gc.collect()
    assert ended == ["slow"] and caplog.text == ""


def test_the_result_and_the_error_of_the_work_come_back() -> None:
    async def work(error: Exception | None) -> Any:
        await asyncio.sleep(0)
        if error:
            raise error
        return 7

    assert event_loop.run(work(None)) == 7
    with pytest.raises(ValueError, match="no"):
        event_loop.run(work(ValueError("no")))
