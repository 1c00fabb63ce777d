"""Builds the environment and the settings of episodes from the section [method]."""

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
    """Build the environment that method.environment names.

    Raises ConfigError if the environment cannot be imported or built, or lacks a member.
    """
    settings = method.model_dump(exclude={"environment", "environment_settings"})
    offered = settings | {"rule": method.rule}
    key = "method.environment"
    return build(method.environment, Environment, key, offered, method.environment_settings)


def system_prompt(method: MethodConfig) -> str:
    """Return the policy's system message.

    If method.system_prompt is "awares", the result is the environment's own prompt and a sentence
    about the budget. Otherwise it is method.system_prompt.
    """
    if method.system_prompt == OWN_PROMPT:
        own = environment(method).system_prompt
        return f"{own} {budget_text(method.max_visual_tokens, method.max_crops)}"
    return method.system_prompt


def inputs(method: MethodConfig) -> dict[str, Any]:
    """Return the settings that decide what the policy reads and may request, as JSON values.

    `system_prompt` holds the full text, because a later version of the environment may have another
    text under the same name.
    """
    return {**method.inputs(), "system_prompt": system_prompt(method)}


def base_prompt(method: MethodConfig, tokenizer: Any, family: ModelFamily) -> str:
    """Return the base policy's system message, which method.base_prompt sets.

    The setting "" stands for the message of the model's chat template, and None for no message.

    Raises PolicyError if the template is missing, fails, or writes another chat format.
    """
    if method.base_prompt is None:
        return ""
    return method.base_prompt or template_prompt(tokenizer, family.chat)


def vision_limits(method: MethodConfig, family: ModelFamily) -> VisionLimits:
    """Return the limits of the family's image processor, with the pixel bounds of `method`."""
    return family.limits(method.min_pixels, method.max_pixels)


def episode_budget(method: MethodConfig, context: int, *, fit: bool = False) -> Budget:
    """Return the bounds of an episode on an engine that accepts `context` tokens.

    If `fit` is true, a request over the budget gets fewer regions or a lower resolution. Otherwise
    such a request is malformed.
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

    If `played` is None, the episodes use method.environment. If `budget` is None, the episodes have
    no bounds.
    """
    return EpisodeSpec(
        limits=vision_limits(method, family),
        environment=played or environment(method),
        low_ratio=method.low_ratio,
        sampling=sampling,
        budget=budget,
    )


def greedy(max_tokens: int) -> Sampling:
    """Return the settings of greedy sampling with at most `max_tokens` tokens per turn."""
    return Sampling(max_tokens=max_tokens)
