"""Serves the adapters of a run with vLLM, without changing the base weights.

    subscriber --verified tensors--> PEFT directory of the version --add_lora--> engine process
    request --Adapters.playing--> LoRARequest of the current version, until the request ends

An update that is smaller than half a unit in the last place of a bfloat16 weight vanishes when it
is added to the weight. Most of an early LoRA update is that small, so vLLM keeps adapters and
weights apart.

A request "plays" an adapter if vLLM computes the request with this adapter. A request plays the
same adapter from its start to its end, so each turn has one version. Every version has a name, an
id and a directory of its own. The keys of vLLM's prefix cache contain the name and the directory,
so versions never share cached prefixes. The vision tower has no adapters, so the encoder cache is
valid for every version.

vLLM may evict an adapter that a request still needs, and then reads the adapter's directory again.
A load therefore removes an older version and its directory only if no request plays this version.
"""

import asyncio
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from awares.family import ModelFamily, in_tower
from awares_platform.engine.load import Prefetched
from awares_platform.weights.adapter import (
    CONFIG_FILE,
    DOWN,
    UP,
    WEIGHTS_FILE,
    adapted,
    rank_of,
    write_peft,
)
from awares_platform.weights.checkpoint import Checkpoint
from awares_platform.weights.manifest import Manifest, Shapes, WeightsError
from awares_platform.weights.subscribe import Received, Subscriber

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

SLOTS = 2
"""Maximum number of different adapters in one batch: the newest, and one for older requests."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def stays_adapter(dtype: str, rank: int) -> bool:
    """Return whether an engine applies an adapter at run time instead of merging it.

    `dtype` is the engine's data type. `rank` is the adapters' rank, or 0 without adapters. A
    float32 engine merges adapters into its weights.
    """
    return rank > 0 and dtype != "float32"


def lora_options(rank: int) -> dict[str, Any]:
    """Return vLLM's engine arguments for adapters whose rank is at most `rank`.

    Raises WeightsError if `rank` exceeds the largest rank that vLLM supports.
    """
    fitting = [size for size in _RANKS if size >= rank]
    if not fitting:
        raise WeightsError(f"policy.lora_rank={rank}: vLLM plays adapters up to rank {_RANKS[-1]}")
    return {
        "enable_lora": True,
        "max_lora_rank": fitting[0],
        "max_loras": SLOTS,
        "max_cpu_loras": SLOTS,
    }


@dataclass(frozen=True, slots=True)
class Adapter:
    """A version of the weights that vLLM serves as a LoRA adapter.

    `request` holds the name, id and directory that the adapter has in vLLM.

    Example:
        Adapter(4, LoRARequest("version 4 (5)", 5, "/tmp/awares-engine-x2/adapters/v4-5"))
    """

    version: int
    request: "LoRARequest"


class Adapters:
    """The adapters of one engine. Loads must run one at a time.

    Every request needs an adapter: without one, vLLM's CPU kernels would apply any loaded adapter.
    Usually, the first adapter (version 0) changes nothing.
    """

    def __init__(
        self, llm: "AsyncLLM", policy: Path, family: ModelFamily, rank: int, directory: Path
    ) -> None:
        """Create `directory`, which will hold the files of the adapters.

        `policy` is the Hugging Face directory of the base weights. `rank` is the largest accepted
        rank of an adapter.
        """
        self._llm, self._family, self._rank, self._root = llm, family, rank, directory
        directory.mkdir(mode=0o700)
        self._shapes = Checkpoint(policy).shapes
        self._serial = itertools.count(1)
        self._held: tuple[Subscriber, Received] | None = None
        self._staged: Adapter | None = None
        # The adapters that vLLM has, oldest first. New requests use the last one.
        self._added: list[Adapter] = []
        self._users: Counter[int] = Counter()

    async def start(self, directory: Path | None = None) -> None:
        """Add the adapter of version 0 to vLLM.

        The adapter comes from the PEFT directory `directory`. If `directory` is None, the adapter
        changes nothing.
        """
        if directory is None:
            zero = _zero(self._shapes, self._family)
            self._staged = await asyncio.to_thread(self._write, 0, *zero)
        else:
            self._staged = await asyncio.to_thread(self._copy, directory)
        await self.apply(0)

    async def prefetch(self, subscriber: Subscriber, version: int) -> Prefetched:
        """Download and verify a version, and write its PEFT directory, while the engine generates.

        Raises StoreError if the store fails. Raises WeightsError if the version is damaged or does
        not fit the engine.
        """
        self._drop_staged()
        held = self._held[1] if self._held and self._held[0] is subscriber else None
        received = await asyncio.to_thread(subscriber.receive, version, held)
        scale = self._check(received.manifest)
        self._held = subscriber, received
        self._staged = await asyncio.to_thread(self._write, version, received.state, scale)
        return Prefetched(
            received.hops,
            received.size,
            received.detours,
            received.fetch_s,
            received.decode_s,
            received.verify_s,
        )

    async def apply(self, version: int, vision: bool = False) -> tuple[float, float]:
        """Add the version that `prefetch` prepared to vLLM, and remove unused older versions.

        Return the durations of the load and of the pause, which are identical here, in seconds.
        `vision` has no effect. Raises WeightsError if `version` is not prepared.
        """
        staged, self._staged = self._staged, None
        if staged is None or staged.version != version:
            raise WeightsError(f"version {version} is not staged; prefetch it first")
        started = time.perf_counter()
        await self._llm.add_lora(staged.request)
        seconds = time.perf_counter() - started
        self._added.append(staged)
        for old in [*self._added[:-1]]:
            if not self._users[old.request.lora_int_id]:
                self._added.remove(old)
                await self._llm.remove_lora(old.request.lora_int_id)
                await asyncio.to_thread(shutil.rmtree, old.request.lora_path)
        return seconds, seconds

    @contextmanager
    def playing(self) -> Iterator["Adapter"]:
        """Yield the current adapter. No load removes this adapter before the block ends."""
        adapter = self._added[-1]
        self._users[adapter.request.lora_int_id] += 1
        try:
            yield adapter
        finally:
            self._users[adapter.request.lora_int_id] -= 1

    def _drop_staged(self) -> None:
        """Delete the files of a version that `prefetch` prepared and `apply` never added."""
        staged, self._staged = self._staged, None
        if staged is not None:
            shutil.rmtree(staged.request.lora_path)

    def _write(self, version: int, tensors: Mapping[str, Tensor], scale: float) -> "Adapter":
        adapter = self._new(version)
        write_peft(tensors, scale, Path(adapter.request.lora_path))
        return adapter

    def _copy(self, directory: Path) -> "Adapter":
        adapter = self._new(0)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(directory / name, Path(adapter.request.lora_path, name))
        return adapter

    def _new(self, version: int) -> "Adapter":
        """Return an adapter for `version`, with a new name, a new id and a new empty directory."""
        from vllm.lora.request import LoRARequest

        serial = next(self._serial)
        directory = self._root / f"v{version}-{serial}"
        directory.mkdir(mode=0o700)
        return Adapter(
            version, LoRARequest(f"version {version} ({serial})", serial, str(directory))
        )

    def _check(self, manifest: Manifest) -> float:
        """Return the scale of the version's adapter.

        Raises WeightsError if the version holds whole weights, or an adapter that does not fit this
        engine.
        """
        if manifest.adapter is None:
            raise WeightsError(
                f"version {manifest.version} holds whole weights, but this engine plays adapters; "
                "start it with policy.lora_rank=0"
            )
        adapted(manifest.shapes, self._shapes, self._family.current_name)
        if tower := [name for name in manifest.shapes if in_tower(self._family, name)]:
            raise WeightsError(
                f"version {manifest.version} has an adapter in the vision tower ({tower[0]}), "
                "which the engine would ignore; adapt layers of the language model only"
            )
        if (rank := rank_of(manifest.shapes)) > self._rank:
            raise WeightsError(
                f"version {manifest.version} is an adapter of rank {rank}, but the engine was "
                f"started for rank {self._rank}; give both the same policy.lora_rank"
            )
        return manifest.adapter


def _zero(shapes: Shapes, family: ModelFamily) -> tuple[dict[str, Tensor], float]:
    """Return the tensors of an adapter that changes nothing, and the adapter's scale."""
    name = next(
        name
        for name in shapes
        if name.removesuffix(".weight").endswith(family.lora_targets) and not in_tower(family, name)
        if name.endswith(".weight")
    )
    layer = family.current_name(name).removesuffix(".weight")
    above, below = shapes[name]
    return {f"{layer}{DOWN}": torch.zeros(1, below), f"{layer}{UP}": torch.zeros(above, 1)}, 1.0
