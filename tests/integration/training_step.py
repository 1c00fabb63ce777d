"""How far one training step moves each tensor of a policy."""

from typing import Any

from torch import Tensor

from awares.batch import collate, token_logprobs
from awares_platform.engine.canary import Canary


def first_step(model: Any, processor: Any, batch: Canary) -> dict[str, Tensor]:
    """Adam's first step towards the answers of `batch`, scaled to each tensor's root mean square.

    `model` is in float32 afterwards.
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
