"""Makes each engine process record its memory before it loads the model.

Python's forkserver imports this file before it starts the engines, because ProbedQwen names the
file as `vllm_module`.
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
