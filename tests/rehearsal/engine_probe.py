"""Makes each engine process record its memory before it loads the model.

Python's forkserver starts the engine processes. It first imports the module `vllm_module` of the
model family, so that no engine has to import it. ProbedQwen names this file as `vllm_module`. This
file imports vLLM's module of Qwen2.5-VL, and replaces the method by which vLLM loads the model.
"""

from typing import Any

import vllm.model_executor.models.qwen2_5_vl  # noqa: F401
from vllm.v1.worker.cpu_worker import CPUWorker

from tests.rehearsal.probe import record

_load = CPUWorker.load_model


def _load_model(self: Any, *arguments: Any, **options: Any) -> None:
    record("engine")
    _load(self, *arguments, **options)


CPUWorker.load_model = _load_model
