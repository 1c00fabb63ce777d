"""The section [evaluate]: the policies to compare, the questions and the scorer."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from awares.evaluation.benchmarks import BenchmarkName
from awares_platform.config.base import Section

PolicyToEvaluate = Literal["full", "low", "threshold", "escalate", "sft", "awares"]
JOINED_FROM = {"threshold": ("low", "full", "awares"), "escalate": ("full", "awares")}
"""Maps "threshold" and "escalate" to the policies whose episodes they combine."""


class EvaluateConfig(Section):
    """Settings of evaluation.

    Every policy answers the same held-out questions with greedy sampling on one engine.
    """

    policies: tuple[PolicyToEvaluate, ...] = (
        "full",
        "low",
        "threshold",
        "escalate",
        "sft",
        "awares",
    )
    """Policies to evaluate. "full" and "low" are the base policy at full and at low resolution.
    "sft" and "awares" are the trained policies. "escalate" takes the answer of full where awares
    asks for crops, and the answer of awares elsewhere. "threshold" takes the answer of full for the
    questions on which low is least confident, and the answer of low elsewhere. The number of these
    questions is the largest at which threshold's mean RTR does not exceed the one of awares."""
    questions: int = Field(default=2048, ge=1)
    """Number of held-out questions, which are the first questions of the test split."""
    benchmarks: tuple[BenchmarkName, ...] = ()
    """Benchmarks of the paper to evaluate on, instead of the data set data.name. No judge is asked
    about their questions, which therefore have no labels and no rewards."""
    benchmark_root: str = ""
    """Directory or s3:// prefix that holds the published data sets of the benchmarks, each below
    its id, such as lmms-lab/ChartQA."""
    benchmark_questions: int | None = Field(default=None, ge=1)
    """Number of questions of each benchmark, which are its first ones. None means all of them."""
    in_flight: int = Field(default=64, ge=1)
    """Number of concurrent questions in the accuracy pass."""
    latency_questions: int = Field(default=64, ge=0)
    """Number of questions for the latency figures. The engine answers them one at a time with cold
    caches, before the accuracy pass. 0 measures no latency."""
    max_tokens: int = Field(default=32, ge=1)
    """Token limit of a turn."""
    scorer: str = "exact"
    """Name of the scorer in awares.evaluation.scorers."""
    scorer_version: Literal["2026-03", "2026-08", "repaired"] = "2026-08"
    """Version of the scorer's rules. "2026-03" and "2026-08" equal lmms-eval 0.7.1 and 0.7.3 with
    their faults; the paper's figures use the first. "repaired" has the rules without these faults.
    The results hold the accuracy by each version."""
    engine_restarts: int = Field(default=3, ge=0)
    """Number of restarts of the engine within an hour before the job fails. A restart keeps the
    finished episodes."""
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

    @model_validator(mode="after")
    def benchmarks_have_a_root(self) -> Self:
        if len(set(self.benchmarks)) != len(self.benchmarks):
            raise ValueError(f"evaluate.benchmarks = {list(self.benchmarks)} names one twice")
        if self.benchmarks and not self.benchmark_root:
            raise ValueError(
                "evaluate.benchmarks needs evaluate.benchmark_root: name the directory or the "
                "s3:// prefix with the published data sets"
            )
        return self

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
