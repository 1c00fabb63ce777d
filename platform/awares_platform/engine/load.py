"""Runs the client side of a weight load, in the process that holds vLLM's AsyncLLM.

`worker.py` runs the other side. To stage a version means to download and prepare it in every
worker.
"""

import asyncio
import pickle
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awares_platform.weights.manifest import WeightsError
from awares_platform.weights.subscribe import Subscriber

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Prefetched:
    """The cost of downloading, verifying and preparing a version in the workers.

    Each value is the maximum over all workers, except `size`.

    Example:
        Prefetched(hops=1, size=135000, detours=0, fetch_s=0.05, decode_s=0.01, verify_s=0.01)
    """

    hops: int
    """The number of downloaded deltas and whole versions."""
    size: int
    """The number of bytes that all workers together downloaded."""
    detours: int
    """The number of download attempts that failed because of damaged data."""
    fetch_s: float
    """The seconds of fetching."""
    decode_s: float
    """The seconds of decoding."""
    verify_s: float
    """The seconds of verifying."""
    vision: bool = False
    """True if the load changes the vision tower."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The measurements of one weight load.

    Example:
        LoadReport(12, Prefetched(...), apply_s=0.05, pause_s=0.08, canary_dlogp=0.0011)
    """

    version: int
    prefetched: Prefetched
    """The cost of the prefetch, which runs before the pause."""
    apply_s: float
    """The seconds of applying the weights, which are a part of the pause."""
    pause_s: float
    """The seconds for which generation pauses."""
    canary_dlogp: float | None
    """The mean absolute difference between the learner's and the engine's logprobs of the canary.

    None without a canary.
    """
    canary_slope: float | None = None
    """`Change.slope` (canary_change.py), or None if it cannot be measured."""


class Loader:
    """Loads versions into one engine, one at a time."""

    def __init__(
        self, llm: "AsyncLLM", timeout_s: float, base: Path, stage_on_device: bool = False
    ) -> None:
        """Prepare to load versions. `base` is the policy directory to which adapters are added."""
        self._llm, self._timeout_s, self._base = llm, timeout_s, base
        self._stage_on_device = stage_on_device
        self._subscriber: Subscriber | None = None

    async def prefetch(self, subscriber: Subscriber, version: int) -> Prefetched:
        """Stage the version in every worker while the engine generates.

        Raises WeightsError if a worker cannot fetch or verify the version; the engine is then
        unchanged. Raises TimeoutError if a worker does not answer a call in time.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        if subscriber is not self._subscriber:
            init = {
                "subscriber": pickle.dumps(subscriber),
                "stage_on_device": self._stage_on_device,
                "base": str(self._base),
            }
            await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init))
            self._subscriber = subscriber
        await self._call("begin_prefetch", version, subscriber.seen.to_bytes())
        while None in (reports := await self._call("prefetch_report")):
            await asyncio.sleep(_POLL_S)
        if errors := [report["error"] for report in reports if report["error"]]:
            raise WeightsError(errors[0])
        values: dict[str, Any] = {
            field.name: max(report[field.name] for report in reports)
            for field in fields(Prefetched)
        }
        values["size"] = sum(report["size"] for report in reports)
        return Prefetched(**values)

    async def _call(self, method: str, *arguments: Any) -> list[Any]:
        async with asyncio.timeout(self._timeout_s):
            return await self._llm.collective_rpc(method, args=arguments)

    async def apply(self, version: int, vision: bool) -> tuple[float, float]:
        """Pause generation, load the staged version and resume. No request is aborted.

        Return the seconds of applying and the seconds of the whole pause. After an exception, the
        weights' state is unknown.
        """
        paused = time.perf_counter()
        # AsyncLLM.pause_generation would also sleep for 20 ms, which is not needed here.
        await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
        started = time.perf_counter()
        await self._llm.collective_rpc("apply_version", args=(version,))
        if vision:
            # The encoder cache holds outputs of the old vision tower, so clear it. Keep vLLM's
            # multimodal cache: it holds pixels and placeholder ranges, which depend on no weights.
            await self._llm.reset_encoder_cache()
        applied = time.perf_counter()
        # The engine process handles the two calls in this order. The version is therefore set
        # before generation resumes.
        await asyncio.gather(
            self._llm.update_weight_version(str(version)), self._llm.resume_generation()
        )
        return applied - started, time.perf_counter() - paused
