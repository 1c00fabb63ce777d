"""Turns the body of a chat completions request into a question for the crop loop.

    parse_request: body -- parse_json -- drop_neutral -- ChatRequest -- _question --> ChatQuestion

A field that the endpoint cannot honour is refused. A token limit above serve.max_tokens is lowered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from awares.chat import Said
from awares.generate import Sampling
from awares_platform.config.serve import ServeConfig
from awares_platform.serve.errors import RequestError
from awares_platform.serve.json_body import parse_json
from awares_platform.serve.json_grammar import json_grammar
from awares_platform.serve.schema import (
    ChatRequest,
    Message,
    ObjectFormat,
    SchemaFormat,
    drop_neutral,
)

Mode = Literal["auto", "low", "full"]
"""What the policy may see: crops on request, only the low-resolution view, or the whole image."""

_LEAST_TOP_P = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatQuestion:
    """A chat request that the endpoint accepts.

    Example:
        ChatQuestion(
            said=(Said("user", "Which digit is on the red circle?", images=1),),
            urls=("data:image/png;base64,iVBORw0...",), sampling=Sampling(), answer_tokens=64,
        )
    """

    said: tuple[Said, ...]
    """Messages of user and assistant."""
    urls: tuple[str, ...]
    """URLs of the images in the messages, in order."""
    sampling: Sampling
    """Settings for each turn of the policy."""
    answer_tokens: int
    """Largest number of tokens of the answer."""
    instructions: str = ""
    """Text of the system messages."""
    choices: int = 1
    """Number of answers."""
    stops: tuple[str, ...] = ()
    """An answer ends before the first of these strings."""
    logprobs: bool = False
    grammar: str | None = None
    """Grammar of the answer, or None."""
    mode: Mode = "auto"
    """What the policy may see."""
    budget: int | None = None
    """Largest number of visual tokens, or None."""
    stream: bool = False
    include_usage: bool = False
    notes: tuple[str, ...] = ()
    """What the endpoint has changed about the request."""


def parse_request(body: bytes, config: ServeConfig) -> ChatQuestion:
    """Validate a request body and return its question.

    Raises RequestError for an invalid request. The error names the wrong field and the remedy.
    """
    fields = drop_neutral(parse_json(body))
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from None
    if request.model != config.model:
        message = f"model {request.model!r} is not served here; ask for {config.model!r}"
        raise RequestError(message, status=404, param="model", code="model_not_found")
    return _question(request, config)


def _explain(error: ValidationError) -> RequestError:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return RequestError(f"{field} is not supported; leave it out", param=field)
    if (
        first["loc"][-1] == "tool_calls"
        or first["type"] == "literal_error"
        and field[-4:] == "role"
    ):
        return RequestError(
            f"{field}: the policy calls no tools of a client; send messages of the roles system, "
            "developer, user and assistant without tool_calls",
            param=field,
        )
    return RequestError(f"{field}: {first['msg']}" if field else first["msg"], param=field or None)


def _question(request: ChatRequest, config: ServeConfig) -> ChatQuestion:
    said, urls = _conversation(request.messages)
    instructions = "\n\n".join(
        message.text for message in request.messages if message.role in ("system", "developer")
    ).strip()
    _check_length(said, instructions, config)
    tokens, notes = _answer_tokens(request, config)
    options = request.awares
    stops = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return ChatQuestion(
        said=said,
        urls=urls,
        sampling=_sampling(request, config),
        answer_tokens=tokens,
        instructions=instructions,
        choices=request.n or 1,
        stops=tuple(stop for stop in stops if stop),
        logprobs=bool(request.logprobs),
        grammar=_grammar(request),
        mode=(options and options.mode) or "auto",
        budget=options.budget if options else None,
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        notes=notes,
    )


def _conversation(messages: Sequence[Message]) -> tuple[tuple[Said, ...], tuple[str, ...]]:
    """Return the messages of user and assistant, and the URLs of all images.

    Successive messages of one role are joined, because the policy expects alternating roles.
    """
    said: list[Said] = []
    urls: list[str] = []
    for index, message in enumerate(messages):
        if message.role in ("system", "developer", "assistant") and message.urls:
            param = f"messages.{index}.content"
            raise RequestError("send images in messages of the role user", param=param)
        if message.role not in ("user", "assistant"):
            continue
        urls += message.urls
        one = Said(message.role, message.text, len(message.urls))
        if said and said[-1].role == one.role:
            text = "\n".join(filter(None, (said[-1].text, one.text)))
            said[-1] = replace(said[-1], text=text, images=said[-1].images + one.images)
        else:
            said.append(one)
    if not said or said[-1].role != "user":
        roles = ", ".join(message.role for message in messages[-3:])
        raise RequestError(
            f"the last message must be of the role user and hold the question; got: {roles}",
            param="messages",
        )
    if not said[-1].text:
        param = f"messages.{len(messages) - 1}.content"
        raise RequestError("send the question as a text part", param=param)
    return tuple(said), tuple(urls)


def _check_length(said: Sequence[Said], instructions: str, config: ServeConfig) -> None:
    count = len(instructions) + sum(len(one.text) for one in said)
    if count > config.max_question_chars:
        raise RequestError(
            f"the messages have {count} characters; the limit is {config.max_question_chars}",
            param="messages",
            code="context_length_exceeded",
        )


def _answer_tokens(request: ChatRequest, config: ServeConfig) -> tuple[int, tuple[str, ...]]:
    """Return the largest number of tokens of the answer, and a note if the endpoint lowers it."""
    key = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    asked = getattr(request, key)
    if asked is None or asked <= config.max_tokens:
        return asked or config.max_tokens, ()
    note = f"{key} is {clip_number(asked)}; an answer has at most {config.max_tokens} tokens here"
    return config.max_tokens, (note,)


def clip_number(number: int) -> str:
    """Return a number as text. For a huge number, return a text such as "over 10**12"."""
    return str(number) if abs(number) < 10**12 else f"over 10**{len(str(abs(number))) - 1}"


def _sampling(request: ChatRequest, config: ServeConfig) -> Sampling:
    """Return the sampling of all turns.

    The client's token limit is not applied here, because a request for crops may be longer. talk.py
    cuts the answer at this limit.
    """
    top_p = 1.0 if request.top_p is None else max(request.top_p, _LEAST_TOP_P)
    # vLLM reads the seed -1 as no seed, so negative seeds become positive.
    seed = None if request.seed is None else request.seed % 2**63
    return Sampling(request.temperature or 0.0, top_p, config.max_tokens, seed)


def _grammar(request: ChatRequest) -> str | None:
    """Return the grammar of the answer, or None for plain text."""
    asked = request.response_format
    if isinstance(asked, ObjectFormat):
        return json_grammar({"type": "object"})
    if isinstance(asked, SchemaFormat):
        return json_grammar(asked.json_schema.schema_)
    return None


def model_card(model: str, created: int) -> dict[str, Any]:
    """Return the response body of GET /v1/models/{model}."""
    return {"id": model, "object": "model", "created": created, "owned_by": "awares"}


def model_list(model: str, created: int) -> dict[str, Any]:
    """Return the response body of GET /v1/models."""
    return {"object": "list", "data": [model_card(model, created)]}
