"""Records the memory, forward passes and recomputations of trainers, and the memory of engines.

The probe appends one JSON object per event to the file $AWARES_REHEARSAL_EVENTS.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from awares.families.qwen2_5_vl import Qwen25VL
from tests.rehearsal.memory import anonymous_bytes

FILE = "AWARES_REHEARSAL_EVENTS"


def record(event: str, **values: Any) -> None:
    """Append one event to the file.

    The event has `values`, the id of this process, the Unix time, and the process's anonymous
    memory in bytes.
    """
    process = {"pid": os.getpid(), "time": time.time(), "memory": anonymous_bytes(os.getpid())}
    with Path(os.environ[FILE]).open("a") as file:
        file.write(json.dumps({"event": event, **process, **values}) + "\n")


class ProbedQwen(Qwen25VL):
    """Qwen2.5-VL whose trainers and engines record events.

    load, loaded  a trainer loads its model, and has loaded it
    pass          a trainer begins a forward pass
    head          the output head has run
    layer         the first decoder layer runs, also when gradient checkpointing repeats it
    engine        an engine loads its model
    """

    # Python's forkserver imports engine_probe.py before it starts the engines.
    vllm_module = "tests.rehearsal.engine_probe"

    def load_model(self, path: Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """Load the model, and add the hooks that record events."""
        record("load")
        model, report = super().load_model(path, **options)
        model.register_forward_pre_hook(_pass, with_kwargs=True)
        model.lm_head.register_forward_hook(_head)
        model.model.language_model.layers[0].register_forward_pre_hook(_layer)
        record("loaded", mapped=mapped_weights())
        return model, report


def mapped_weights() -> int:
    """Return how many bytes of safetensors files this process maps into its memory."""
    lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
    places = [line.split()[0] for line in lines if line.endswith(".safetensors")]
    edges = [[int(edge, 16) for edge in place.split("-")] for place in places]
    return sum(end - start for start, end in edges)


def _pass(_: Any, __: Any, inputs: dict[str, Any]) -> None:
    ids_BT, mask_BT = inputs["input_ids"], inputs.get("attention_mask")
    record(
        "pass",
        rows=ids_BT.shape[0],
        width=ids_BT.shape[1],
        tokens=int(ids_BT.numel() if mask_BT is None else mask_BT.sum()),
        patches=int(inputs["image_grid_thw"].prod(1).sum()),
        gradient=torch.is_grad_enabled(),
    )


def _head(_: Any, __: Any, logits: torch.Tensor) -> None:
    record("head", scored=logits.numel() // logits.shape[-1], gradient=torch.is_grad_enabled())


def _layer(*_: Any) -> None:
    record("layer", gradient=torch.is_grad_enabled())
