"""Runs the worker side of a weight load, as a backend of vLLM's weight transfer.

vLLM's workers import this file through `worker_extension_cls`. The import registers the backend and
patches vLLM's linear layers (rounding.py).

This file loads whole weights, and adapters that it folds into float32 weights. adapters.py loads
all other adapters. A load has two phases, the prefetch and the pause:

    awares_platform.engine.load           worker (this module)
      begin_prefetch(version, HEAD) --->  a thread downloads, verifies and stages the version
      prefetch_report() <-------------->    while the worker generates
      pause (mode "keep")
      apply_version(version) ---------->  vLLM's three steps of a weight update:
                                            start_weight_update   refuse if nothing is staged
                                            update_weights        apply.py, changed modules only
                                            finish_weight_update
      resume

The engine process executes remote calls between its generation steps. A call that waits for a
download would stop the generation, so the prefetch runs in a thread. One call runs all three steps
of the update, because each additional call lengthens the pause.

In a tensor-parallel engine, every worker fetches and verifies a part of the version. The workers
share the tensors in host memory, and each worker loads its slice of each tensor.
"""

import pickle
import threading
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from awares.errors import AwaresError
from awares_platform.engine import rounding
from awares_platform.engine.apply import Unit, aliases, apply, on_device, touched, units
from awares_platform.engine.lifetime import end_with_parent
from awares_platform.weights.adapter import fold_adapter
from awares_platform.weights.checkpoint import Checkpoint
from awares_platform.weights.head import Head
from awares_platform.weights.manifest import Manifest, Shapes, WeightsError, check_fit
from awares_platform.weights.readers import ALONE, HostReaders, Readers
from awares_platform.weights.subscribe import Received, Subscriber

BACKEND = "awares_store"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """The arguments with which vLLM initialises the backend in a worker.

    Example:
        InitInfo(pickle.dumps(subscriber), stage_on_device=False, base="/models/qwen")
    """

    subscriber: bytes
    """A pickled awares_platform.weights.Subscriber."""
    stage_on_device: bool
    """The setting engine.stage_on_device."""
    base: str
    """The directory of the policy that adapters change."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """The argument of a weight update: the number of the staged version.

    Example:
        UpdateInfo(version=4)
    """

    version: int


class PrefetchReport(TypedDict):
    """The result of a prefetch. vLLM's remote calls can return only built-in types, such as a dict.

    Example:
        PrefetchReport(
            version=4, error="", fetch_s=0.05, decode_s=0.01, verify_s=0.01,
            size=135000, hops=1, detours=0, vision=False,
        )
    """

    version: int
    error: str
    """The message of a failure, or "" if the version is staged."""
    fetch_s: float
    """The seconds of fetching."""
    decode_s: float
    """The seconds of decoding."""
    verify_s: float
    """The seconds of verifying."""
    size: int
    """The number of bytes that this worker downloaded."""
    hops: int
    """The number of downloaded deltas and whole versions."""
    detours: int
    """The number of download attempts that failed because of damaged data."""
    vision: bool
    """True if the load changes the vision tower."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A version that is ready to be applied.

    Example:
        Staged(manifest, (unit,), {"lm_head.weight": tensor})
    """

    manifest: Manifest
    units: tuple[Unit, ...]
    """The parts of the model that must be loaded."""
    state: Mapping[str, Tensor]
    """Maps names in the checkpoint to tensors. Contains at least all tensors of `units`."""


class StoreTransfer(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Loads versions from the object store into this worker's model.

    The object keeps the last version's tensors in host memory, because the next delta may need
    them.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    _subscriber: Subscriber
    _stage_on_device: bool
    _base: Path
    _readers: Readers | None = None
    _held: Received | None = None
    # A cache: the tensor names of the last staged version, and the result of `units` for them.
    _units: tuple[tuple[str, ...], tuple[Unit, ...]] | None = None
    _staged: Staged | None = None
    _loaded: Manifest | None = None
    _broken: str = ""
    _report: PrefetchReport | None = None
    _thread: threading.Thread | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        end_with_parent()

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Keep the subscriber, and read the shapes of the policy's tensors.

        A version of whole weights must have these shapes.
        """
        self._subscriber = pickle.loads(init_info.subscriber)
        # Drop the held version: it may belong to another run with the same version numbers.
        self._held = None
        self._stage_on_device = init_info.stage_on_device
        self._base = Path(init_info.base)
        if self._readers is None:
            self._readers = HostReaders() if torch.distributed.get_world_size() > 1 else ALONE
        self._aliases = aliases(self.model)
        self._vision = _vision_prefixes(self.model)
        self._expected = self._mapped(Checkpoint(Path(self.model_config.model)).shapes)

    def begin_prefetch(self, version: int, head: Head) -> None:
        """Start to stage `version` in a thread. `report` tells when the version is staged.

        `head` is the content of HEAD, and must list the version. Raises WeightsError if another
        prefetch is running or the model is half updated.
        """
        if self._broken:
            raise WeightsError(self._broken)
        if self._thread is not None and self._thread.is_alive():
            raise WeightsError(
                f"version {version}: another prefetch is still running; wait for its report"
            )
        self._staged = self._report = None
        self._subscriber.seen = head
        self._thread = threading.Thread(
            target=self._prefetch, args=(version,), name=f"prefetch-v{version}", daemon=True
        )
        self._thread.start()

    def report(self) -> PrefetchReport | None:
        """Return the report of the last prefetch, or None while the prefetch runs."""
        return self._report

    def start_weight_update(self) -> None:
        """Raise WeightsError if no version is staged or the model is half updated.

        This step of the update does not change the model.
        """
        if self._broken:
            raise WeightsError(self._broken)
        if self._staged is None:
            raise WeightsError("no version is staged; prefetch one first")

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Apply the staged version to the model.

        Raises WeightsError if `update_info` names another version. A failure while the version is
        applied leaves the model half updated. The worker then refuses every further update.
        """
        version, self._staged = self._staged, None
        if version is None or version.manifest.version != update_info.version:
            raise WeightsError(f"version {update_info.version} is not staged; prefetch it first")
        self._broken = f"version {update_info.version} was not applied whole; restart the engine"
        apply(self.model, self.model_config, version.units, version.state)
        self._loaded, self._broken = version.manifest, ""

    def finish_weight_update(self) -> None:
        """Do nothing, because `apply` has already completed each module."""

    def shutdown(self) -> None:
        """Drop the staged version. A running download ends with the process."""
        self._staged = None

    def _prefetch(self, version: int) -> None:
        """Stage `version` and write the report. The prefetch thread runs this method.

        After a failure, the report holds the error and the engine keeps its present version.
        """
        report = PrefetchReport(
            version=version,
            error="",
            fetch_s=0.0,
            decode_s=0.0,
            verify_s=0.0,
            size=0,
            hops=0,
            detours=0,
            vision=False,
        )
        try:
            self._held = received = self._receive(version)
            self._staged = staged = self._stage(received)
            report["vision"] = any(
                name.startswith(self._vision) for unit in staged.units for name in unit.parameters
            )
            for name in ("fetch_s", "decode_s", "verify_s", "size", "hops", "detours"):
                report[name] = getattr(received, name)
        except AwaresError as error:
            report["error"] = str(error)
        except Exception as error:
            # Report every exception, because the engine polls until there is a report.
            report["error"] = f"{type(error).__name__}: {error}"
        self._report = report

    def _receive(self, version: int) -> Received:
        assert self._readers is not None, "init_transfer_engine comes first"
        return self._subscriber.receive(version, self._held, self._readers)

    def _stage(self, received: Received) -> Staged:
        manifest = received.manifest
        state, changed = self._fitted(received)
        if self._units is None or self._units[0] != tuple(state):
            self._units = tuple(state), units(self.model, state)
        found = touched(self._units[1], changed)
        if not self._stage_on_device:
            return Staged(manifest, found, state)
        try:
            return Staged(manifest, found, on_device(found, state, self.device))
        except torch.OutOfMemoryError as error:
            raise WeightsError(
                f"version {manifest.version}: no room on {self.device} for its changed tensors "
                "beside those in use; lower engine.gpu_memory_utilization or set "
                "engine.stage_on_device to false"
            ) from error

    def _fitted(self, received: Received) -> tuple[Mapping[str, Tensor], set[str]]:
        """Return all tensors of the version, and the names of the tensors that must be loaded.

        An adapter is first added to the policy in `self._base`. Raises WeightsError if the version
        belongs to another model.
        """
        manifest, changed = received.manifest, received.manifest.changed_tensors(self._loaded)
        if manifest.adapter is not None:
            base = Checkpoint(self._base)
            # Use float32, as the engine does: the base's own data type would round the update away.
            weights, went = fold_adapter(
                received.state, manifest.adapter, base, self._vllm_name, torch.float32
            )
            # ChainMap's type annotations demand mutable mappings, but nothing writes to `state`.
            state: Mapping[str, Tensor] = ChainMap(
                weights,  # pyright: ignore[reportArgumentType, reportAssignmentType]
                base,  # pyright: ignore[reportArgumentType]
            )
            return state, {went[name] for name in changed} if self._replaces(manifest) else {*state}
        check_fit(
            self._expected, self._mapped(manifest.shapes), manifest.version, self.model_config.model
        )
        self._check_tied(manifest)
        return received.state, changed

    def _replaces(self, manifest: Manifest) -> bool:
        """Return whether the weights whose adapter tensors are unchanged can stay as they are.

        They can if no version is loaded yet, or if the loaded version is an adapter with the same
        scale that changes no further layers.
        """
        present = self._loaded
        return present is None or (
            present.adapter == manifest.adapter and present.shapes.keys() <= manifest.shapes.keys()
        )

    def _mapped(self, named: Shapes) -> Shapes:
        """Return the shapes under vLLM's names, with one entry for each group of tied tensors.

        transformers may rename tensors when it saves a checkpoint. vLLM's names never change.
        """
        return {
            new: named[old] for new, old in self._renamed(named).items() if new not in self._aliases
        }

    def _check_tied(self, manifest: Manifest) -> None:
        """Raise WeightsError if the version has different values for tensors that the model ties.

        The usual pair of tied tensors is the output head and the embeddings.
        """
        results = {entry.name: entry.hashes for entry in manifest.tensors}
        names = self._renamed(manifest.shapes)
        for alias, first in self._aliases.items():
            if alias in names and results[names[alias]] != results[names[first]]:
                raise WeightsError(
                    f"version {manifest.version}: {names[alias]} differs from {names[first]}, but "
                    f"the engine's policy ({self.model_config.model}) ties them; start engine and "
                    "learner from one policy.base"
                )

    def _vllm_name(self, name: str) -> str:
        return next(iter(self._renamed([name])))

    def _renamed(self, names: Iterable[str]) -> dict[str, str]:
        """Map vLLM's name of each tensor to the tensor's name in `names`."""
        mapper: Any = getattr(self.model, "hf_to_vllm_mapper", None)
        if mapper is None:
            return {name: name for name in names}
        return mapper.get_rename_mapper().apply_dict({name: name for name in names})


def _vision_prefixes(model: Any) -> tuple[str, ...]:
    """Return the name prefixes of the vision parameters in vLLM's multimodal model."""
    mapping = model.get_mm_mapping()
    return (*mapping.tower_model, *mapping.connector)


class WeightsExtension:
    """The methods that vLLM adds to its worker class. `Loader` calls them with collective_rpc."""

    weight_transfer_engine: StoreTransfer

    def begin_prefetch(self, version: int, head: bytes) -> None:
        """Start to download and verify `version` in the background.

        `head` is the content of HEAD that the caller read. The workers do not read HEAD again.
        """
        self.weight_transfer_engine.begin_prefetch(version, Head.from_bytes(head))

    def prefetch_report(self) -> PrefetchReport | None:
        """Return the report of the last prefetch, or None while the prefetch runs."""
        return self.weight_transfer_engine.report()

    def apply_version(self, version: int) -> None:
        """Load the staged `version` into the model. Generation must be paused."""
        worker: Any = self
        worker.start_weight_update()
        worker.update_weights({"version": version})
        worker.finish_weight_update()


EXTENSION = f"{WeightsExtension.__module__}.{WeightsExtension.__qualname__}"
WeightTransferEngineFactory.register_engine(BACKEND, StoreTransfer)
rounding.install()
