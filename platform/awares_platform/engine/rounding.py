"""Makes vLLM's linear layers add their adapters without losing small changes.

training/rounding.py explains the loss. The learner's layers add their adapters in the same way.
"""

from typing import Any

import torch
from torch import Tensor

from awares_platform.training.rounding import add_once


def install() -> None:
    """Make every linear layer with adapters add them with `add_once`.

    vLLM then computes the adapter's output on its own, as a sum that starts at zero.
    """
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    layer: Any = BaseLinearLayerWithLoRA
    added = layer._apply_lora_to_output

    def apply(self: Any, x: Tensor, output: Tensor) -> Tensor:
        return add_once(output, added(self, x, torch.zeros_like(output)))

    layer._apply_lora_to_output = apply
