"""Inside vLLM's engine process: our backend of vLLM's weight-transfer interface.

Imported by the engine process only, which finds it as `worker_extension_cls`; importing it registers the backend. Two phases:

    awares_platform.engine                 worker (this module)
      begin_prefetch(version) ----------->  a thread downloads, verifies and fits the version, while the worker generates
      prefetch_report() <---------------->  ... until it is staged
      pause (keep) -> start_weight_update ->  layers go back to checkpoint layout
      update_weights({"version"}) -------->  the staged tensors, one call for all of them
      finish_weight_update -------------->  layers go to kernel layout, in place
      resume

The prefetch is a thread because an engine process runs its calls between steps: a call that downloads would stop generation.
"""

import pickle
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from safetensors import safe_open
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from awares.errors import AwaresError
from awares_platform.engine_launch import BACKEND, end_with_parent
from awares_platform.weights.manifest import Shapes, WeightsError, check_fit
from awares_platform.weights.subscribe import Received, Subscriber


@dataclass
class InitInfo(WeightTransferInitInfo):
    """`subscriber`: a pickled awares_platform.weights.Subscriber (bytes are what vLLM's calls carry)."""

    subscriber: bytes


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """A pointer to the staged version."""

    version: int


class PrefetchReport(TypedDict):
    """What became of a prefetch; plain values, for vLLM's calls carry nothing else. `error` is "" when the version is staged."""

    version: int
    error: str
    fetch_s: float
    verify_s: float
    size: int


class StoreTransfer(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Loads versions from the object store into this worker's model."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    _subscriber: Subscriber
    _staged: Received | None = None
    _report: PrefetchReport | None = None
    _thread: threading.Thread | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        end_with_parent()

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Take the subscriber, and the shapes that the model was started with: a version must fit them."""
        self._subscriber = pickle.loads(init_info.subscriber)
        self._expected = self._mapped(checkpoint_shapes(Path(self.model_config.model)))

    def begin_prefetch(self, version: int) -> None:
        """Start to stage `version`; `report` tells when it is there. One at a time."""
        if self._thread is not None and self._thread.is_alive():
            raise WeightsError(f"version {version}: another prefetch is still running; wait for its report")
        self._staged = self._report = None
        self._thread = threading.Thread(target=self._prefetch, args=(version,), name=f"prefetch-v{version}", daemon=True)
        self._thread.start()

    def report(self) -> PrefetchReport | None:
        """The last prefetch's report; None while it runs."""
        return self._report

    def start_weight_update(self) -> None:
        """Put the layers back into checkpoint layout: on CPU, linear weights are prepacked."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load the staged version. What fails from here on leaves the model half updated: the engine must not be used again."""
        staged, self._staged = self._staged, None
        if staged is None or staged.manifest.version != update_info.version:
            raise WeightsError(f"version {update_info.version} is not staged; prefetch it first")
        self.model.load_weights((name, tensor.to(self.device)) for name, tensor in staged.state.items())  # pyright: ignore[reportCallIssue]

    def finish_weight_update(self) -> None:
        """Bring the layers into kernel layout, into the storage that they had."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Drop what is staged. A running download ends with the process."""
        self._staged = None

    def _prefetch(self, version: int) -> None:
        """The thread's body: whatever fails becomes the report's error, and the engine goes on with the version that it has."""
        report = PrefetchReport(version=version, error="", fetch_s=0.0, verify_s=0.0, size=0)
        try:
            received = self._subscriber.receive(version)
            check_fit(self._expected, self._mapped(received.manifest.shapes), version, self.model_config.model)
            report.update(fetch_s=received.fetch_s, verify_s=received.verify_s, size=received.manifest.size)
            self._staged = received
        except AwaresError as error:
            report["error"] = str(error)
        except Exception as error:  # a thread's exception would otherwise vanish, and the engine wait for its report until the timeout
            report["error"] = f"{type(error).__name__}: {error}"
        self._report = report

    def _mapped(self, named: Shapes) -> Shapes:
        """Shapes under vLLM's names: transformers saves one and the same model under older and newer names."""
        mapper: Any = getattr(self.model, "hf_to_vllm_mapper", None)
        return named if mapper is None else mapper.get_rename_mapper().apply_dict(dict(named))


class WeightsExtension:
    """Methods that vLLM adds to its worker, for collective_rpc."""

    weight_transfer_engine: StoreTransfer

    def begin_prefetch(self, version: int) -> None:
        """Start to download and verify `version` in the background."""
        self.weight_transfer_engine.begin_prefetch(version)

    def prefetch_report(self) -> PrefetchReport | None:
        """The last prefetch's report; None while it runs."""
        return self.weight_transfer_engine.report()


def checkpoint_shapes(directory: Path) -> Shapes:
    """Tensor names and shapes of a checkpoint, from its safetensors headers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118, no mapping
    return found


WeightTransferEngineFactory.register_engine(BACKEND, StoreTransfer)
