"""Loads exported policies into a running engine through the weight bus (awares_platform.weights).

files -- ExportedLoader publishes --> weight bus -- Engine.load_version --> engine
  +------ transformers' logprobs of the canary, in the manifest --------------^
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from awares.family import ModelFamily
from awares_platform.engine.adapters import stays_adapter
from awares_platform.engine.canary import Canary, Logprobs, learner_logprobs, to_extra
from awares_platform.engine.engine import Engine
from awares_platform.engine.load import LoadReport
from awares_platform.store import ObjectStore
from awares_platform.training import lora
from awares_platform.training.merge import check_complete
from awares_platform.weights import Cadence, Identity, Publisher, Subscriber
from awares_platform.weights.adapter import rank_in, read_peft
from awares_platform.weights.checkpoint import Checkpoint
from awares_platform.weights.manifest import folder


@dataclass(frozen=True, slots=True)
class Exported:
    """The directories of an exported policy.

    Example:
        Exported(Path("/cache/sft"), start=Path("/models/qwen"), adapter=Path("/cache/sft/adapter"))
    """

    policy: Path
    """The whole policy after the training."""
    start: Path
    """The policy before the training."""
    adapter: Path | None
    """The PEFT directory of the trained adapter, or None if all weights were trained."""

    def check(self, family: ModelFamily) -> None:
        """Raise PolicyError if the training changed a weight that the adapter does not change."""
        if self.adapter is not None:
            check_complete(self.start, self.adapter, self.policy, family)

    def engine_rank(self, dtype: str) -> int:
        """Return the adapter's rank, or 0 if the engine holds no separate adapter.

        `dtype` is the engine's data type.
        """
        rank = 0 if self.adapter is None else rank_in(self.adapter)
        return rank if stays_adapter(dtype, rank) else 0


class ExportedLoader:
    """Loads exported policies into an engine, one after the other.

    `load` publishes each policy as a version of `run`, which must have no learner.

    Example:
        loader = ExportedLoader(store, "mini/evaluate", family, "float32", processor)
        report = await loader.load(engine, exported, canary)
    """

    def __init__(
        self, store: ObjectStore, run: str, family: ModelFamily, dtype: str, processor: Any
    ) -> None:
        self._store, self._run, self._family = store, run, family
        self._dtype, self._processor = getattr(torch, dtype), processor
        self._publisher, self._scale = self._claim(None), None
        self._subscriber = Subscriber(store, run)
        self._whole_logprobs = dict[tuple[Path, str], Logprobs]()

    async def load(self, engine: Engine, exported: Exported, canary: Canary) -> LoadReport:
        """Publish `exported` and load it into `engine`, whose version 0 is `exported.start`.

        Raises CanaryMismatch if the canary's logprobs differ too much from transformers' logprobs.
        Raises EngineError if the engine dies.
        """
        extra = await asyncio.to_thread(self._expected, exported, canary)
        version = await asyncio.to_thread(self._publish, exported, extra, engine.version)
        return await engine.load_version(self._subscriber, version, canary)

    def delete(self) -> None:
        """Delete all weights that `load` has published."""
        self._store.delete_prefix(f"{folder(self._run)}/")

    def _expected(self, exported: Exported, canary: Canary) -> dict[str, Any]:
        """Return the `extra` of a manifest, with canary logprobs that transformers computes."""
        if exported.adapter is None:
            before = self._logprobs_of(exported.start, canary)
            after = learner_logprobs(self._model(exported.policy), self._processor, canary)
            return {"canary": to_extra(canary, after, before)}
        model = self._model(exported.start)
        lora.attach_trained(model, self._family, *read_peft(exported.adapter))
        with lora.adapters_off(model):
            before = learner_logprobs(model, self._processor, canary)
        after = learner_logprobs(model, self._processor, canary)
        return {"canary": to_extra(canary, after, before)}

    def _logprobs_of(self, start: Path, canary: Canary) -> Logprobs:
        """Compute and cache the canary's logprobs under the policy in the directory `start`."""
        key = start, canary.digest
        if key not in self._whole_logprobs:
            model = self._model(start)
            self._whole_logprobs[key] = learner_logprobs(model, self._processor, canary)
        return self._whole_logprobs[key]

    def _model(self, path: Path) -> Any:
        model, _ = self._family.load_model(path, dtype=self._dtype, local_files_only=True)
        return model.eval()

    def _publish(self, exported: Exported, extra: dict[str, Any], above: int) -> int:
        """Publish the adapter or, if there is none, the whole policy.

        Return the number of the published version, which is greater than `above`.
        """
        if exported.adapter is None:
            tensors, scale = Checkpoint(exported.policy), None
        else:
            tensors, scale = read_peft(exported.adapter)
        current = self._family.current_name
        state = {current(name): tensor.to(self._dtype) for name, tensor in tensors.items()}
        if scale != self._scale:
            self._publisher, self._scale = self._claim(scale), scale
        version = max(self._publisher.version or 0, above) + 1
        self._publisher.publish(version, state, extra)
        return version

    def _claim(self, scale: float | None) -> Publisher:
        """Return a publisher of adapters, or of whole weights if `scale` is None."""
        identity, cadence = Identity(adapter=scale), Cadence(keep=1)
        return Publisher(self._store, self._run, identity=identity, cadence=cadence)
