"""The section [curate]: how samples get their labels and target crops."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from awares_platform.config.base import Section, Table

JUDGES = ("match", "endpoint")
GROUNDINGS = ("annotations", "endpoint")


class EndpointConfig(Section):
    """An OpenAI-compatible chat endpoint."""

    url: str = ""
    """Base URL, such as http://judge:8000/v1."""
    model: str = ""
    """Name of the model."""
    api_key_variable: str = ""
    """Environment variable that holds the API key. "" sends no key."""
    max_tokens: int = Field(default=512, ge=1)
    """Token limit of a reply."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Time limit of one request, in seconds."""
    retry_budget_s: float = Field(default=120.0, ge=0)
    """Time limit of one reply with all its retries, in seconds. A request is retried while the
    endpoint is unreachable, busy (429) or failing (5xx)."""
    in_flight: int = Field(default=32, ge=1)
    """Maximum number of requests that one process sends at once."""
    requests_per_minute: int = Field(default=0, ge=0)
    """Maximum rate at which one process sends requests. 0 sets no limit."""
    tokens_per_minute: int = Field(default=0, ge=0)
    """Maximum rate of tokens, of requests and replies together, in one process. 0 sets no limit."""
    input_price: float = Field(default=0.0, ge=0)
    """Price per million input tokens, for curate.budget and the datasheet."""
    output_price: float = Field(default=0.0, ge=0)
    """Price per million output tokens, in the same currency."""

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of some tokens, in the currency of the prices."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


class CurateConfig(Section):
    """Settings of curation.

    The base policy answers each question at both resolutions. The judge compares the answers with
    the truth, and the grounding locates the evidence.
    """

    judge: str = Field(default="match", json_schema_extra={"pattern": "^(match|endpoint|.+:.+)$"})
    """Judge of the answers. "match" compares normalised answers with the truth. "endpoint" asks an
    LLM; the paper uses LLaMA-3.3-70B. module:attribute names an `awares.Judge` of your own."""
    judge_form: Literal["compare", "each"] = "compare"
    """How the judge "endpoint" is asked. "compare" asks which of the two answers is better, as the
    paper does. "each" asks of each answer whether it is right, which tells both wrong from both
    right. Different answers are then two questions."""
    judge_prompt: str = ""
    """File with the prompt of the judge "endpoint", or the prompt itself if it has several lines.
    It has the placeholders {question}, {reference}, {answer_1} and {answer_2}; with "each", it has
    {answer} instead of the last two. "" takes the built-in prompt."""
    judge_settings: Table = Field(default_factory=dict)
    """Arguments of a judge of your own."""
    judge_endpoint: EndpointConfig = EndpointConfig()
    """The LLM judge's endpoint."""
    second_judge: str = Field(
        default="match", json_schema_extra={"pattern": "^(match|endpoint|.+:.+)$"}
    )
    """Judge with which `awares data agreement` compares the verdicts of a curated set. The choices
    are those of `judge`."""
    second_judge_settings: Table = Field(default_factory=dict)
    """Arguments of a second judge of your own."""
    second_judge_endpoint: EndpointConfig = EndpointConfig()
    """The second judge's endpoint. The paper compares with DeepSeek-V3.2."""
    grounding: str = Field(
        default="annotations", json_schema_extra={"pattern": "^(annotations|endpoint|.+:.+)$"}
    )
    """Source of the evidence boxes. "annotations" takes the boxes of the data set. "endpoint" asks
    a grounding model; the paper uses Qwen3-VL-235B-A22B. module:attribute names an
    `awares.Grounding` of your own."""
    grounding_prompt: str = ""
    """File with the prompt of the grounding "endpoint", or the prompt itself if it has several
    lines. It has the placeholder {question}. "" takes the built-in prompt."""
    grounding_settings: Table = Field(default_factory=dict)
    """Arguments of a grounding of your own."""
    grounding_endpoint: EndpointConfig = EndpointConfig()
    """The grounding model's endpoint."""
    grounding_unit: Literal["auto", "fractions", "thousandths", "pixels"] = "auto"
    """Unit of the grounding model's coordinates. "auto" reads the unit off the replies of a shard,
    and refuses what stays ambiguous. The model is asked for "thousandths" (0 to 1000)."""
    budget: float = Field(default=0.0, ge=0)
    """Largest cost of all replies about a data set, in the currency of the endpoints' prices. If it
    is spent, curate stops and can go on later. evaluate gives the remaining questions no label. 0
    sets no limit."""
    both_wrong: Literal["LR", "drop"] = "drop"
    """What happens to a sample that the base policy answers wrongly at both resolutions. "drop"
    leaves the sample out; "LR" labels it LR, as the paper does."""
    min_confidence: float = Field(default=0.9, ge=0, le=1)
    """Probability below which a right low-resolution answer counts as a guess. The label is then
    HR, provided that the full-resolution answer is also right. The probability is that of the whole
    greedy answer, so this key suits short answers only. The paper uses 0."""
    in_flight: int = Field(default=64, ge=1)
    """Number of concurrent requests per engine."""
    max_tokens: int = Field(default=32, ge=1)
    """Token limit of an answer."""
    engines: int = Field(default=1, ge=1)
    """Number of engine actors. Each actor holds one engine."""
    engine_restarts: int = Field(default=3, ge=0)
    """Number of restarts of an actor, of its engine, or of the labelling of one shard, within an
    hour before the job fails. The new process works on the unfinished shard again."""
    engine_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray reserves per engine actor."""
    engine_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves per engine actor."""

    @field_validator("judge", "second_judge", "grounding")
    @classmethod
    def parts_are_built_in_or_named_by_module(cls, value: str, info: ValidationInfo) -> str:
        """Refuse a name that is neither built in nor of the form module:attribute."""
        names = GROUNDINGS if info.field_name == "grounding" else JUDGES
        module, _, attribute = value.partition(":")
        if value not in names and not (module and attribute):
            known = ", ".join(f'"{name}"' for name in names)
            raise ValueError(
                f"curate.{info.field_name} = {value!r}: use {known} or module:attribute"
            )
        return value

    @model_validator(mode="after")
    def endpoints_are_named(self) -> Self:
        """Refuse the choice "endpoint" if the endpoint's URL or model is missing."""
        for choice, section in (
            ("judge", self.judge_endpoint),
            ("second_judge", self.second_judge_endpoint),
            ("grounding", self.grounding_endpoint),
        ):
            if getattr(self, choice) == "endpoint" and not (section.url and section.model):
                raise ValueError(
                    f'curate.{choice} = "endpoint" needs curate.{choice}_endpoint.url and .model'
                )
        return self

    @model_validator(mode="after")
    def dropping_needs_a_judge_that_tells_wrong_from_right(self) -> Self:
        """Refuse `both_wrong` = "drop" with an LLM judge that compares the two answers.

        The verdict 0 of such a judge means both right or both wrong.
        """
        if self.both_wrong == "drop" and self.judge == "endpoint" and self.judge_form != "each":
            raise ValueError(
                'curate.both_wrong = "drop" needs curate.judge = "match" or curate.judge_form = '
                '"each": the 0 of an LLM judge that compares stands for both right and for both '
                "wrong"
            )
        return self
