"""Counts the processes of curation that die, and tells the user about them on the terminal.

    Answerer    --lost, tell--+
    label_shard --begun-------+--> Losses (an actor beside the driver) --lines--> terminal

Ray Data alone would restart dead processes silently and without limit.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError

from awares_platform.runtime.driver import beside_driver
from awares_platform.runtime.watch import FailureRate

_EVERY_S = 2.0


class Losses:
    """Counts how often each answerer, and the labelling task of each shard, has died.

    The job must end if one of them dies more than `most` times in an hour.

    Example:
        losses = Losses(3)
        losses.lost("a1")  # ""
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rates: dict[str, FailureRate] = {}
        self._begun: set[str] = set()
        self._lines: list[str] = []

    def lost(self, answerer: str) -> str:
        """Count a death of this answerer. Return why the job must end, or "" to go on."""
        return self._lost(answerer, "the process of an answerer", "another one answers its shard")

    def begun(self, shard: str) -> str:
        """Record that a process labels this shard. Return why the job must end, or "" to go on.

        A second call for a shard shows that the earlier process has died.
        """
        if shard not in self._begun:
            self._begun.add(shard)
            return ""
        part = f"the process that labels {shard}"
        return self._lost(shard, part, "another one labels the shard")

    def _lost(self, key: str, part: str, then: str) -> str:
        rate = self._rates.setdefault(key, FailureRate(self._most))
        if rate.count():
            return (
                f"{part} died {rate.recent} times within an hour: find the cause in Ray's logs, "
                "then run the job again, or raise curate.engine_restarts"
            )
        self.tell(f"{part} has died; {then}")
        return ""

    def tell(self, line: str) -> None:
        """Keep a line for the terminal until the driver fetches it with `lines`."""
        self._lines.append(line)

    def lines(self) -> list[str]:
        """Return the lines that were kept since the last call."""
        lines, self._lines = self._lines, []
        return lines


class LossReports:
    """Calls the job's Losses actor from answerers and labelling tasks.

    Example:
        reports = LossReports(handle)
        if reason := reports.lost_before():
            raise LaunchError(reason)
    """

    def __init__(self, losses: Any) -> None:
        self._losses = losses

    def tell(self, line: str) -> None:
        """Show the line on the driver's terminal."""
        self._losses.tell.remote(line)

    def lost_before(self) -> str:
        """If this actor replaces a dead one, count a death. Return why the job must end, or ""."""
        here = ray.get_runtime_context()
        if not here.was_current_actor_reconstructed:
            return ""
        return ray.get(self._losses.lost.remote(here.get_actor_id()))

    def begun(self, shard: str) -> str:
        """Record that this process labels the shard. Return why the job must end, or ""."""
        return ray.get(self._losses.begun.remote(shard))


@contextmanager
def shown(most: int, say: Callable[[str], None]) -> Iterator[LossReports]:
    """Start the Losses actor, and yield a LossReports. `say` prints lines from the actor."""
    losses: Any = ray.remote(**beside_driver())(Losses).remote(most)
    done = threading.Event()

    def show() -> None:
        over = False
        with suppress(RayError):
            while not over:
                over = done.wait(_EVERY_S)
                for line in ray.get(losses.lines.remote()):
                    say(line)

    showing = threading.Thread(target=show, daemon=True)
    showing.start()
    try:
        yield LossReports(losses)
    finally:
        done.set()
        showing.join()
        ray.kill(losses)
