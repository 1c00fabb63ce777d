"""The fields of OpenAI's chat completions API that the endpoint reads, ignores or refuses.

body -- drop_neutral --> drops fields without an effect, and refuses unsupported values by name
     -- ChatRequest ---> checks the types of the other fields strictly: 1 is not accepted for true
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, field_validator

from awares_platform.serve.errors import RequestError

MOST_CHOICES = 8
"""The largest `n`, the number of answers to one request."""
_SEED = 2**63
_MOST_MESSAGES = 256
_MOST_PARTS = 256
_MOST_STOPS = 4

_NEUTRAL: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "presence_penalty": ((0,), "the policy samples without penalties"),
    "frequency_penalty": ((0,), "the policy samples without penalties"),
    "repetition_penalty": ((1,), "the policy samples without penalties"),
    "length_penalty": ((1,), "the policy samples without penalties"),
    "logit_bias": (({},), "the policy samples without a bias"),
    "top_logprobs": ((0,), "logprobs=true returns the logprobs of the sampled tokens only"),
    "top_k": ((-1, 0), "use temperature and top_p"),
    "min_p": ((0,), "use temperature and top_p"),
    "best_of": ((1,), "use n"),
    "num_beams": ((1,), "use n"),
    "use_beam_search": ((False,), "use n"),
    "min_tokens": ((0,), "an answer may have any length"),
    "ignore_eos": ((False,), "an answer ends where the policy ends it"),
    "skip_special_tokens": ((True,), "an answer has no special tokens"),
    "echo": ((False,), "an answer does not repeat the question"),
    "tools": (([],), "the policy calls no tools of a client"),
    "functions": (([],), "the policy calls no functions of a client"),
    "tool_choice": (("none", "auto"), "the policy calls no tools of a client"),
    "function_call": (("none", "auto"), "the policy calls no functions of a client"),
    "modalities": ((["text"],), "answers are text"),
    "audio": ((), "answers are text"),
    "prediction": ((), "answers are short"),
    "reasoning_effort": (("none",), "the policy does not reason in text"),
    "verbosity": (("medium",), "answers are short"),
    "web_search_options": ((), "the policy reads images only"),
}
"""Maps each field to the values that have no effect, and to the reason to refuse other values."""

IGNORED = (
    *("user", "store", "service_tier", "safety_identifier", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_retention"),
)
"""The endpoint ignores these fields, because they cannot change an answer."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextPart(_Part):
    """A text part of a message. The text of a message consists of its text and refusal parts."""

    type: Literal["text"]
    text: str
    cache_control: Any = None


class RefusalPart(_Part):
    """An earlier refusal of the assistant, which clients send back in the assistant's message."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Part):
    """The URL of an image: a data: URL, or a URL on an allowlisted host.

    The endpoint accepts `detail` but ignores it, because the policy chooses the resolution.
    """

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None
    format: str | None = None


class ImagePart(_Part):
    """An image part of a message. The short form gives the URL itself as `image_url`."""

    type: Literal["image_url"]
    image_url: ImageUrl
    cache_control: Any = None

    @field_validator("image_url", mode="before")
    @classmethod
    def url_alone_is_an_object(cls, value: Any) -> Any:
        """Turn the short form, a plain URL, into an object."""
        return {"url": value} if isinstance(value, str) else value


class Message(_Part):
    """One message of the conversation.

    Clients send earlier answers of the assistant back with all fields of OpenAI's format. The
    endpoint therefore accepts these fields, and refuses most of them only if they are not empty.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Annotated[TextPart | ImagePart | RefusalPart, Field(discriminator="type")]],
        FailFast(),
        Field(max_length=_MOST_PARTS),
    ] = []
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    annotations: Any = None
    cache_control: Any = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    @field_validator("content", mode="before")
    @classmethod
    def text_alone_is_one_part(cls, content: Any) -> Any:
        """Turn OpenAI's short form, a plain string, into one text part. Turn null into no parts."""
        if content is None:
            return []
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def text(self) -> str:
        """The text of the message, without blank space around it."""
        texts = (
            part.text if isinstance(part, TextPart) else part.refusal
            for part in self.content
            if not isinstance(part, ImagePart)
        )
        return "\n".join(texts).strip()

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of the images, in order."""
        return tuple(part.image_url.url for part in self.content if isinstance(part, ImagePart))


class StreamOptions(_Part):
    """The options of a streamed response."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(_Part):
    """The JSON schema of an answer. The endpoint enforces it even if `strict` is false.

    If a token limit or a stop string cuts an answer, its JSON may be incomplete.
    """

    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class TextFormat(_Part):
    """The format of a plain answer."""

    type: Literal["text"]


class ObjectFormat(_Part):
    """The format of an answer that is any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(_Part):
    """The format of an answer that obeys a JSON schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class AwaresOptions(_Part):
    """The options that this endpoint adds to OpenAI's API.

    `mode` is "low" or "full" for this resolution, or "auto" to let the policy request crops.
    `budget` limits the visual tokens of all views of one answer.
    """

    mode: Literal["auto", "low", "full"] | None = None
    budget: int | None = Field(None, ge=1)


class ChatRequest(_Part):
    """The fields of POST /v1/chat/completions that have an effect, and `metadata`.

    The endpoint checks the type of `metadata`, and then ignores it.
    """

    model: str
    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=_MOST_MESSAGES)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-_SEED, lt=_SEED)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    response_format: (
        Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, Any] | None = None
    awares: AwaresOptions | None = None

    @field_validator("stop")
    @classmethod
    def stop_has_few_strings(cls, stop: str | list[str] | None) -> str | list[str] | None:
        """Refuse more stop strings than OpenAI allows."""
        if isinstance(stop, list) and len(stop) > _MOST_STOPS:
            raise ValueError(f"at most {_MOST_STOPS} strings are allowed")
        return stop


def drop_neutral(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a body that are neither in `IGNORED` nor in `_NEUTRAL`.

    Raises RequestError if a field asks for something that the endpoint does not do.
    """
    kept = {key: value for key, value in body.items() if key not in IGNORED}
    for key, (neutral, reason) in _NEUTRAL.items():
        value = kept.pop(key, None)
        if value is not None and not _is_one_of(value, neutral):
            raise RequestError(
                f"{key} is not supported with this value: {reason}; leave it out", param=key
            )
    return kept


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Return whether `value` is one of `neutral`. Unlike Python, distinguish true from 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)
