"""Makes vLLM's linear layers add the outputs of adapters without losing small changes.

training/rounding.py explains how a plain addition loses such changes. The learner's layers also use
`add_once`.
"""

from typing import Any

import torch
from torch import Tensor

from awares_platform.training.rounding import add_once


def install() -> None:
    """Patch vLLM so that its linear layers add an adapter's output with `add_once`.

    A patched layer first computes the adapter's output alone. `add_once` then adds it to the output
    of the base layer.
    """
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    layer: Any = BaseLinearLayerWithLoRA
    added = layer._apply_lora_to_output

    def apply(self: Any, x: Tensor, output: Tensor) -> Tensor:
        return add_once(output, added(self, x, torch.zeros_like(output)))

    layer._apply_lora_to_output = apply
