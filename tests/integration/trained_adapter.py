"""Provides a LoRA adapter of the bundled policy, and training steps like Adam's first step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.batch import collate
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.logprobs import token_logprobs
from awares_platform.engine.canary import Canary, Logprobs, learner_logprobs
from awares_platform.training import lora
from awares_platform.weights.adapter import is_adapter

RANK = 8


@dataclass
class TrainedAdapter:
    """A learner's float32 model with adapters, its processor, and a canary.

    `publish_as` is the data type of the published adapter.
    """

    model: Any
    processor: Any
    canary: Canary
    publish_as: torch.dtype

    @classmethod
    def attach(
        cls, policy: Path, processor: Any, canary: Canary, publish_as: torch.dtype
    ) -> "TrainedAdapter":
        """Load the policy in float32, and attach new adapters as a learner does."""
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(policy, dtype=torch.float32)
        lora.attach(model.eval(), QWEN2_5_VL, RANK, 16.0, (), seed=0)
        return cls(model, processor, canary, publish_as)

    @property
    def scale(self) -> float:
        value = lora.scale(self.model)
        assert value is not None
        return value

    def step(self, batch: Canary, size: float) -> None:
        """Move each element of the adapters by `size` against its gradient, like Adam's first step.

        The loss is the cross-entropy of the answers in `batch`.
        """
        inputs = collate(
            batch.items, batch.originals.__getitem__, self.processor, batch.limits, batch.low_ratio
        )
        self.model.zero_grad()
        logits_BTV = self.model(**inputs.forward_inputs(), use_cache=False).logits
        logprobs_BT = token_logprobs(logits_BTV, inputs.input_ids_BT)
        logprobs_BT[inputs.action_mask_BT.bool()].mean().backward()
        with torch.no_grad():
            for name, tensor in self.model.named_parameters():
                if is_adapter(name):
                    tensor.add_(tensor.grad.sign(), alpha=size)

    def published(self) -> dict[str, Tensor]:
        """Return the adapter in the data type in which the learner publishes it."""
        return {
            name: tensor.detach().to(self.publish_as).clone()
            for name, tensor in self.model.named_parameters()
            if is_adapter(name)
        }

    def logprobs(self) -> Logprobs:
        """Return the learner's canary logprobs, with the adapter rounded as in `published`."""
        exact = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}
        with torch.no_grad():
            for name, tensor in self.model.named_parameters():
                if is_adapter(name):
                    tensor.copy_(tensor.to(self.publish_as))
            found = learner_logprobs(self.model, self.processor, self.canary)
            for name, tensor in self.model.named_parameters():
                tensor.copy_(exact[name])
        return found

    def merged(self) -> dict[str, Tensor]:
        """Return the policy's weights in bfloat16, with the adapters added to them."""
        named = {name: tensor.detach() for name, tensor in self.model.named_parameters()}
        return {
            name: tensor.bfloat16().contiguous()
            for name, tensor in lora.merged(self.model, named).items()
        }
