"""Writes groups to the journal in one thread, so that two writes never overlap.

    add(group) --> unwritten --flush, read--> one thread --> Journal

A task that waits for a write may be cancelled, but the write itself goes on to its end. The next
write waits for it. A group leaves `unwritten` only once the journal holds it, so the next `flush`
repeats a write that failed.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from awares_platform.grpo.group import Group, Position
from awares_platform.grpo.journal import Journal, Recovered, latest_attempts
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.segment import Training, pair
from awares_platform.store.errors import StoreError

log = logging.getLogger(__name__)


class Recorder:
    """The only writer of a run's journal. Call its methods from a single event loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self.unwritten: list[Group] = []

    def add(self, group: Group) -> None:
        """Keep a finished or unfinished group that the next `flush` writes."""
        self.unwritten.append(group)

    async def flush(self, training: Training | None = None) -> None:
        """Write all added groups and `training`. Raises StoreError if the store fails."""
        await self._in_thread(self._write, training)

    def _write(self, training: Training | None) -> None:
        groups = self.unwritten[:]
        # If a group was added unfinished and then finished, write only the finished group.
        latest = {pair(group): group for group in groups}
        self._journal.append([*latest.values()], training)
        del self.unwritten[: len(groups)]

    async def finish(self) -> None:
        """Write the groups that no step has written, at the end of a run.

        The method only logs a failure of the store, which must not hide the error that ended the
        run.
        """
        try:
            await self.flush()
        except StoreError as error:
            log.warning("the last groups are not in the journal, and are sampled again: %s", error)

    async def read(
        self, position: Position, lineage: Lineage, bound: int
    ) -> tuple[Lineage, Recovered]:
        """Return the latest groups of the prompts that are not settled in `position`.

        Also return `lineage` with the run's first version as its root. `bound` is
        grpo.staleness_bound. Raises StoreError if the store fails.
        """
        journal = self._journal

        def stale(sampled: Collection[int]) -> bool:
            return lineage.rooted(journal.root).stale(sampled, lineage.first, bound)

        found: Recovered = await self._in_thread(journal.read, position, stale)
        lineage = lineage.rooted(journal.root)
        journal.root = lineage.root
        groups = latest_attempts([*found.groups, *self.unwritten])
        numbers = {group.prompt.number for group in groups}
        left = {number: last for number, last in found.stale.items() if number not in numbers}
        return lineage, Recovered(tuple(groups), left)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, function, *arguments))
