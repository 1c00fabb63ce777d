"""[curate]: labelling when and where to crop."""

from typing import Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section


class EndpointConfig(Section):
    """An OpenAI-compatible chat endpoint."""

    url: str = ""
    """Base URL, such as http://judge:8000/v1."""
    model: str = ""
    """Model name to ask for."""
    api_key_variable: str = ""
    """Environment variable that holds the key; "" sends none."""
    max_tokens: int = Field(default=512, ge=1)
    """Token limit of a reply."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Time for one request."""
    retry_budget_s: float = Field(default=120.0, ge=0)
    """Total time spent on one reply when the endpoint is unreachable, busy (429) or failing (5xx)."""
    in_flight: int = Field(default=32, ge=1)
    """Requests at a time, per curation worker."""


class CurateConfig(Section):
    """Both answers by the base policy, a verdict by the judge, boxes by grounding."""

    judge: Literal["match", "endpoint"] = "match"
    """"match": normalised comparison with the truth; "endpoint": an LLM judge (the paper: LLaMA-3.3-70B)."""
    judge_endpoint: EndpointConfig = EndpointConfig()
    """The LLM judge's endpoint."""
    grounding: Literal["annotations", "endpoint"] = "annotations"
    """"annotations": the samples' evidence boxes; "endpoint": a grounding model (the paper: Qwen3-VL-235B-A22B)."""
    grounding_endpoint: EndpointConfig = EndpointConfig()
    """The grounding model's endpoint."""
    both_wrong: Literal["LR", "drop"] = "drop"
    """A sample that the base policy fails at both resolutions: left out, or LR as in the paper."""
    min_confidence: float = Field(default=0.9, ge=0, le=1)
    """A right answer at low resolution that the base policy gave with less probability than this counts as a guess: HR, if full
    resolution is right as well (paper: 0, the judge alone). Probability of the whole greedy answer, so it suits short ones only."""
    in_flight: int = Field(default=64, ge=1)
    """Requests at a time, per engine."""
    max_tokens: int = Field(default=32, ge=1)
    """Token limit of an answer."""
    engines: int = Field(default=1, ge=1)
    """Engine actors; each holds one engine."""
    engine_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray reserves per engine actor."""
    engine_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves per engine actor."""

    @model_validator(mode="after")
    def endpoints_are_named(self) -> Self:
        for choice, section in (
            ("judge", self.judge_endpoint),
            ("grounding", self.grounding_endpoint),
        ):
            if getattr(self, choice) == "endpoint" and not (section.url and section.model):
                raise ValueError(
                    f'curate.{choice} = "endpoint" needs curate.{choice}_endpoint.url and .model'
                )
        return self

    @model_validator(mode="after")
    def dropping_needs_a_judge_that_tells_wrong_from_right(self) -> Self:
        if self.both_wrong == "drop" and self.judge == "endpoint":
            raise ValueError(
                'curate.both_wrong = "drop" needs curate.judge = "match": an LLM judge\'s 0 is for both right as for both wrong'
            )
        return self
