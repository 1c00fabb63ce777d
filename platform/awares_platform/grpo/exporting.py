"""Exports the best version of a GRPO run, and also its last version if that is not the best."""

from typing import Any

import torch.distributed

from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.grpo.order import Chosen
from awares_platform.store import ObjectStore
from awares_platform.training import lora, zero
from awares_platform.training.export import delete_policy, export_adapter, export_policy
from awares_platform.training.recipe import Recipe
from awares_platform.training.snapshot import Snapshots
from awares_platform.training.start import StartingPolicy

BEST, LAST = "awares", "awares-last"


class Exporter:
    """Exports policies, together with the other ranks. All ranks must call each method.

    `engine` is DeepSpeed's engine, and `start` is the starting policy.

    Example:
        exporter = Exporter(engine, store, start, family, recipe, method)
        exporter.finish(chosen, 120, 121, snapshots, "mini")
    """

    def __init__(
        self,
        engine: Any,
        store: ObjectStore,
        start: StartingPolicy,
        family: ModelFamily,
        recipe: Recipe,
        method: MethodConfig,
    ) -> None:
        self._engine, self._store, self._method = engine, store, method
        self._start, self._family, self._recipe = start, family, recipe

    def finish(
        self, chosen: Chosen, step: int, version: int, snapshots: Snapshots, run: str
    ) -> None:
        """Export the policies of `run` after `step` steps, when the engine holds `version`.

        If an earlier version is the best one, the method loads its weights into the engine.
        """
        meta: dict[str, Any] = {"step": step, "steps": step}
        if chosen.version not in (None, version):
            self._export(run, LAST, meta)
            snapshots.load(chosen.version)
        elif self._engine.global_rank == 0:
            delete_policy(self._store, run, LAST)
        if chosen.version is not None:
            meta |= {"step": chosen.step, "held_out": chosen.figures}
        self._export(run, BEST, meta)

    def _export(self, run: str, name: str, about: dict[str, Any]) -> None:
        """Export the policy. A LoRA run exports the merged weights and also the adapter."""
        state, adapter = zero.full_state(self._engine), zero.full_adapter(self._engine)
        meta = {**about, "recipe": self._recipe}
        scale = lora.scale(self._engine.module)
        if self._engine.global_rank == 0:
            source, store = self._start.weights, self._store
            named = (store, run, name, self._family, self._method)
            # Name the policy in `grpo.start`, even if `source` holds the base policy's files.
            origin = {"trained_from": self._recipe["starting policy"]}
            export_policy(state, source, *named, {**meta, **origin}, adapter=scale is not None)
            if scale is not None:
                export_adapter(adapter, scale, source, self._start.name, *named, meta)
        torch.distributed.barrier()
