"""Computes Adam's first step on all weights of a policy, and applies the step."""

from typing import Any

import torch
from torch import Tensor

from awares.batch import collate
from awares.logprobs import token_logprobs
from awares_platform.engine.canary import Canary


def first_step(model: Any, processor: Any, batch: Canary) -> dict[str, Tensor]:
    """Return, for each tensor, Adam's first step towards the answers of `batch`.

    A step is the sign of the gradient times the tensor's root mean square. `model` becomes float32.
    """
    model = model.float()
    inputs = collate(
        batch.items, batch.originals.__getitem__, processor, batch.limits, batch.low_ratio
    )
    logprobs_BT = token_logprobs(
        model(**inputs.forward_inputs(), use_cache=False).logits, inputs.input_ids_BT
    )
    logprobs_BT[inputs.action_mask_BT.bool()].mean().backward()
    return {
        name: tensor.grad.sign() * tensor.detach().square().mean().sqrt()
        for name, tensor in model.named_parameters()
    }


def take_step(model: Any, processor: Any, batch: Canary, size: float) -> None:
    """Move each element of `model` by `size` times its value in the result of `first_step`."""
    model.zero_grad()
    step = first_step(model, processor, batch)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.add_(step[name], alpha=size)
