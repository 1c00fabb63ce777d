"""Loading a version into a running vLLM engine, from the side of the process that holds its AsyncLLM (see transfer.py for the other)."""

import asyncio
import pickle
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from awares_platform.weights.manifest import WeightsError
from awares_platform.weights.subscribe import Subscriber

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Prefetched:
    """What staging a version took: manifests and bytes, damage met on the way, and the slowest worker's seconds; and whether the vision
    tower will change.

    Example:
        Prefetched(hops=1, size=135000, detours=0, fetch_s=0.05, decode_s=0.01, verify_s=0.01, vision=False)
    """

    hops: int
    size: int
    detours: int
    fetch_s: float
    decode_s: float
    verify_s: float
    vision: bool = False


@dataclass(frozen=True, slots=True)
class LoadReport:
    """One weight load, and the canary's mean |dlogp| (None without a canary). Generation stood still for `pause_s`, of which `apply_s` went
    into the weights; all that `prefetched` counts ran beside it.

    Example:
        LoadReport(12, Prefetched(...), apply_s=0.05, pause_s=0.08, canary_dlogp=0.0011)
    """

    version: int
    prefetched: Prefetched
    apply_s: float
    pause_s: float
    canary_dlogp: float | None


class Loader:
    """One engine's loads, one at a time."""

    def __init__(self, llm: "AsyncLLM", timeout_s: float, stage_on_device: bool = False) -> None:
        self._llm, self._timeout_s, self._stage_on_device = llm, timeout_s, stage_on_device
        self._subscriber: Subscriber | None = None

    async def prefetch(self, subscriber: Subscriber, version: int) -> Prefetched:
        """Stage the version in every worker while the engine generates. Takes as long as the store does; only a worker that does not even
        answer raises TimeoutError.

        Raises WeightsError when a worker could not fetch, verify or fit it; the engine is as it was.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        if subscriber is not self._subscriber:
            init = {
                "subscriber": pickle.dumps(subscriber),
                "stage_on_device": self._stage_on_device,
            }
            await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init))
            self._subscriber = subscriber
        await self._call("begin_prefetch", version, subscriber.seen.to_bytes())
        while None in (reports := await self._call("prefetch_report")):
            await asyncio.sleep(_POLL_S)
        if errors := [report["error"] for report in reports if report["error"]]:
            raise WeightsError(errors[0])
        return Prefetched(
            **{
                field.name: max(report[field.name] for report in reports)
                for field in fields(Prefetched)
            }
        )

    async def _call(self, method: str, *arguments: Any) -> list[Any]:
        async with asyncio.timeout(self._timeout_s):
            return await self._llm.collective_rpc(method, args=arguments)

    async def apply(self, version: int, vision: bool) -> tuple[float, float]:
        """Pause, load the staged version, resume; seconds of applying and of the whole pause. Requests in flight keep their place.

        Whatever it raises leaves the engine paused, its weights in an unknown state.
        """
        paused = time.perf_counter()
        # pause_generation without its closing sleep of 20 ms, which is there for callers that read outputs in the meantime
        await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
        started = time.perf_counter()
        await self._llm.collective_rpc("apply_version", args=(version,))
        if vision:
            # The encoder cache holds the vision tower's outputs by the image's hash. The multimodal cache (processor outputs: pixels, grid,
            # placeholder ranges) is made from the image alone, no weight enters it; cleared on one side of the process boundary while a
            # request is on its way, the other side would refer to what is gone.
            await self._llm.reset_encoder_cache()
        applied = time.perf_counter()
        await asyncio.gather(
            self._llm.update_weight_version(str(version)), self._llm.resume_generation()
        )  # sent in this order
        return applied - started, time.perf_counter() - paused
