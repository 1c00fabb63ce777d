"""Splits the learner's batches, and computes their metrics, outside the controller's event loop.

For 1,600 groups, each of the two tasks would block the event loop for about 0.1 seconds.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from awares.passes import PassBudget
from awares.view import ImageView
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.batch_scale import batch_scaled
from awares_platform.grpo.group import StepBatch
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.shard import StepShard, shards, shown
from awares_platform.grpo.step_metrics import batch_metrics


class BatchThread:
    """Works on whole batches, one at a time, in a thread of its own.

    asyncio's default threads are not used, because rewards may occupy all of them. If `packed` is
    true, the learner's forward passes have no padding.
    """

    def __init__(self, settings: GrpoConfig, packed: bool) -> None:
        self._settings = settings
        self._passes = PassBudget(settings.micro_batch, settings.micro_tokens, packed)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")

    async def dealt(self, batch: StepBatch, ranks: int) -> list[StepShard]:
        """Return each rank's part of `batch`, with the advantages that the learner trains on."""
        return await self._run(self._deal, batch, ranks)

    def _deal(self, batch: StepBatch, ranks: int) -> list[StepShard]:
        scaled = batch_scaled(batch, self._settings)
        return shards(scaled, ranks, self._settings.minibatches, self._passes)

    async def views(self, batch: StepBatch, ranks: int) -> list[tuple[ImageView, ...]]:
        """Return the distinct views of each rank's part of `batch`, in the order of their use."""
        return await self._run(lambda: [shown(shard) for shard in self._deal(batch, ranks)])

    async def metrics(self, batch: StepBatch, version: int, lineage: Lineage) -> dict[str, float]:
        """Return the metrics of a batch that updates `version` (see step_metrics.py)."""
        return await self._run(batch_metrics, batch, version, lineage)

    def release(self, held: list[tuple[StepBatch, int] | None]) -> None:
        """Empty the list `held`, and let the thread free the memory of its batches.

        The thread frees one group at a time, because freeing 1,600 groups at once would block all
        Python threads for 0.07 seconds.
        """
        self._thread.submit(_free, held)

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)


def _free(held: list[tuple[StepBatch, int] | None]) -> None:
    while held:
        batch, _ = held.pop() or (None, 0)
        groups = list(batch.groups) if batch else []
        del batch
        while groups:
            groups.pop()
