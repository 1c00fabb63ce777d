"""Provides a small Qwen2.5-VL with random weights, which a test can publish as a learner does."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.generate import GenerateRequest, Sampling
from awares.mini.policy import build_model, build_processor, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares.sample import Sample
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.canary import Canary, Logprobs, learner_logprobs, to_extra
from awares_platform.engine.engine import Engine
from awares_platform.weights import Publisher
from tests.integration.running_engine import LIMITS, scenes

CONFIG = EngineConfig(
    dtype="float32",
    kv_cache_gib=0.25,
    max_requests=32,
    load_timeout_s=20.0,
    view_cache_gib=0.03,
)
"""The configuration of an engine that runs the random policy."""


@dataclass(frozen=True)
class RandomPolicy:
    """A policy with random weights, and what a test needs to run and publish it."""

    path: Path
    chat: ChatFormat
    processor: Any
    model: Qwen2_5_VLForConditionalGeneration
    canary: Canary
    """A fixed set of answers whose logprobs show whether an engine has these weights."""
    learner: Logprobs
    """The canary logprobs that transformers computes with `model`."""
    samples: tuple[Sample, ...]
    images: dict[str, Image.Image]

    @classmethod
    def build(cls, path: Path) -> "RandomPolicy":
        """Create a random policy, save it to the directory `path`, and return it."""
        tokenizer = train_tokenizer()
        chat = ChatFormat(tokenizer)
        model = sharpened(build_model(tokenizer, seed=0), chat.blocked_ids)
        save_policy(model, tokenizer, path)
        # `save_policy` has rounded the weights of `model` to bfloat16. The engine also loads the
        # rounded weights, and computes in float32.
        model.float()
        samples, images = scenes(8)
        canary = Canary.build(samples[:4], images.__getitem__, chat, LIMITS, 0.5)
        processor = build_processor(tokenizer)
        learner = learner_logprobs(model, processor, canary)
        return cls(path, chat, processor, model, canary, learner, samples, images)

    def ask(self, index: int, sampling: Sampling) -> GenerateRequest:
        """Return the request for the first turn of the question with this index."""
        sample = self.samples[index % len(self.samples)]
        return GenerateRequest(
            self.chat.first_turn(sample.question),
            (self.images[sample.image],),
            sampling,
            f"ask-{index}",
        )

    def pictured(self, index: int, side: int = 700) -> GenerateRequest:
        """Return a question about a random image. Each `index` has a different image."""
        image = Image.effect_noise((side, side), 40 + index).convert("RGB")
        return replace(self.ask(index, Sampling(max_tokens=4)), images=(image,))

    def publish(
        self,
        publisher: Publisher,
        engine: Engine,
        state: Mapping[str, Tensor] | None = None,
        model: Qwen2_5_VLForConditionalGeneration | None = None,
    ) -> int:
        """Publish `state` with the canary logprobs of `model`, and return the new version.

        By default, `state` and `model` are the weights and the model of this policy.
        """
        if model is None:
            logprobs = self.learner
        else:
            logprobs = learner_logprobs(model, self.processor, self.canary)
        version = max(publisher.version or 0, engine.version) + 1
        publisher.publish(
            version,
            dict(state or self.model.state_dict()),
            {"canary": to_extra(self.canary, logprobs)},
        )
        return version


def sharpened(
    model: Qwen2_5_VLForConditionalGeneration, blocked: tuple[int, ...]
) -> Qwen2_5_VLForConditionalGeneration:
    """Change the random model so that its output depends on every tensor, and return the model."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norm weights are one and biases are zero, and would have no effect without this noise.
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif "visual" in name:
                parameter.normal_(std=0.12)
        # Blocked ids get large logits, so that a test notices if the engine does not mask them.
        model.lm_head.weight[list(blocked)] *= 3.0
    return model.eval()


def moved(
    model: Qwen2_5_VLForConditionalGeneration, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """Return a copy of `model` with noise added to every weight."""
    torch.manual_seed(seed)
    other = Qwen2_5_VLForConditionalGeneration(model.config).eval()
    other.load_state_dict(
        {
            name: tensor + torch.randn_like(tensor) * 0.05
            for name, tensor in model.state_dict().items()
        }
    )
    return other
