"""Builds the environment from the section [method], and the settings of its episodes."""

from typing import Any

from awares.budget import Budget, budget_text
from awares.chat import template_prompt
from awares.environment import Environment
from awares.episode_spec import EpisodeSpec
from awares.family import ModelFamily
from awares.generate import Sampling
from awares.tokens import VisionLimits
from awares_platform.config.method import OWN_PROMPT, MethodConfig
from awares_platform.method.seams import build


def environment(method: MethodConfig) -> Environment:
    """Build method.environment. Raises ConfigError if it cannot be imported, built or used."""
    settings = method.model_dump(exclude={"environment", "environment_settings"})
    offered = settings | {"rule": method.rule}
    key = "method.environment"
    return build(method.environment, Environment, key, offered, method.environment_settings)


def system_prompt(method: MethodConfig) -> str:
    """Return the policy's system message.

    "awares" selects the environment's own prompt, and adds a sentence about the budget.
    """
    if method.system_prompt == OWN_PROMPT:
        own = environment(method).system_prompt
        return f"{own} {budget_text(method.max_visual_tokens, method.max_crops)}"
    return method.system_prompt


def base_prompt(method: MethodConfig, tokenizer: Any, family: ModelFamily) -> str:
    """Return the base policy's system message, by default that of the model's chat template.

    Raises PolicyError if the template is missing or does not write the family's layout.
    """
    if method.base_prompt is None:
        return ""
    return method.base_prompt or template_prompt(tokenizer, family.chat)


def vision_limits(method: MethodConfig, family: ModelFamily) -> VisionLimits:
    """Return the image size limits of the family's processor for the pixel bounds in `method`."""
    return family.limits(method.min_pixels, method.max_pixels)


def episode_budget(method: MethodConfig, context: int, *, fit: bool = False) -> Budget:
    """Return the bounds of an episode on an engine that accepts `context` tokens.

    If `fit` is true, a request over the budget is answered within it.
    """
    return Budget(method.max_visual_tokens, method.max_crops, context, fit)


def episode_spec(
    method: MethodConfig,
    family: ModelFamily,
    sampling: Sampling,
    played: Environment | None = None,
    budget: Budget | None = None,
) -> EpisodeSpec:
    """Return the settings of episodes that are played in the environment `played`.

    If `played` is None, the environment is method.environment. If `budget` is None, no bound holds.
    """
    return EpisodeSpec(
        limits=vision_limits(method, family),
        environment=played or environment(method),
        low_ratio=method.low_ratio,
        sampling=sampling,
        budget=budget,
    )


def greedy(max_tokens: int) -> Sampling:
    """Return settings for greedy sampling with at most `max_tokens` tokens per turn."""
    return Sampling(max_tokens=max_tokens)
