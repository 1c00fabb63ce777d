"""[evaluate]: the policies to compare, the questions and the scorer."""

from typing import Literal

from pydantic import Field, field_validator

from awares_platform.config.base import Section

PolicyToEvaluate = Literal["full", "low", "threshold", "escalate", "sft", "awares"]
JOINED_FROM = {"threshold": ("low", "full", "awares"), "escalate": ("full", "awares")}
"""The policies whose episodes give those of a policy of two passes."""


class EvaluateConfig(Section):
    """Every policy answers the same held-out questions, greedily, on one engine."""

    policies: tuple[PolicyToEvaluate, ...] = (
        "full",
        "low",
        "threshold",
        "escalate",
        "sft",
        "awares",
    )
    """full and low: the base policy at one resolution. threshold: low, and full where low is least
    sure, at the mean tokens of awares. escalate: full where awares asks for anything, else its
    answer. sft and awares: the trained policies."""
    questions: int = Field(default=2048, ge=1)
    """Number of held-out questions, from the start of the test split."""
    in_flight: int = Field(default=64, ge=1)
    """Questions in flight in the accuracy pass."""
    latency_questions: int = Field(default=64, ge=0)
    """Questions for the latency figures. They are answered one at a time with cold caches, before
    the accuracy pass; 0 measures no latency."""
    max_tokens: int = Field(default=32, ge=1)
    """Token limit of a turn."""
    scorer: str = "exact"
    """Name in awares.evaluation.scorers."""
    scorer_version: Literal["2026-03", "2026-08"] = "2026-08"
    """Rules of the scorer. "2026-03" are those of the paper's figures, "2026-08" the newer ones."""
    engine_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray reserves for the engine's actor."""
    engine_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for the engine's actor."""

    @field_validator("scorer")
    @classmethod
    def scorer_exists(cls, name: str) -> str:
        from awares.evaluation.scorers import scorer

        scorer(name)
        return name

    @field_validator("policies")
    @classmethod
    def policies_are_unique(
        cls, policies: tuple[PolicyToEvaluate, ...]
    ) -> tuple[PolicyToEvaluate, ...]:
        if not policies or len(set(policies)) != len(policies):
            raise ValueError(
                f"evaluate.policies = {list(policies)} must name each policy at most once, "
                "and at least one"
            )
        for name, parts in JOINED_FROM.items():
            missing = [part for part in parts if part not in policies]
            if name in policies and missing:
                raise ValueError(
                    f"evaluate.policies: {name} is computed from {' and '.join(parts)}; "
                    f"add {' and '.join(missing)}, or leave out {name}"
                )
        return policies
