"""Defines the part of OpenAI's chat completions API that the endpoint supports.

A request is one user message with one image and one question. The endpoint refuses a request with
an unsupported field, and the error names this field.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from awares.episode import StopReason
from awares.errors import DataError
from awares_platform.config.serve import ServeConfig
from awares_platform.serve.croploop import ServedAnswer


class RequestError(DataError):
    """An error that the endpoint returns to the client.

    `status` is the HTTP status. `param` is the wrong field, or None. `code` is a name of the error
    that never changes, so that programs can rely on it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str = "invalid_request",
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """Return the response body in the error format that OpenAI clients parse."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        }


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Part):
    """A text part of a message. All text parts together form the question."""

    type: Literal["text"]
    text: str


class ImageUrl(_Part):
    """The URL of an image: a data: URL, or a URL on an allowlisted host.

    The endpoint accepts `detail` but ignores it, because the policy chooses the resolution.
    """

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Part):
    """An image part of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(_Part):
    """One message of the conversation."""

    role: str
    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]

    @field_validator("content", mode="before")
    @classmethod
    def text_alone_is_one_part(cls, content: Any) -> Any:
        """Turn OpenAI's short form, a plain string, into one text part."""
        return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ChatRequest(_Part):
    """The request body of POST /v1/chat/completions."""

    model: str
    messages: list[Message]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    n: Literal[1] = 1
    stream: Literal[False] = False
    user: str | None = None
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """The image and the question of a request.

    Example:
        ChatQuestion("data:image/png;base64,iVBORw0...", "Which digit is on the red circle?")
    """

    image_url: str
    text: str


def parse_request(body: bytes, config: ServeConfig) -> tuple[ChatRequest, ChatQuestion]:
    """Validate a request body and extract its question.

    Raises RequestError for an invalid request. The error names the wrong field and the remedy.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _explain(error) from None
    if request.model != config.model:
        message = f"model {request.model!r} is not served here; ask for {config.model!r}"
        raise RequestError(message, status=404, param="model", code="model_not_found")
    return request, _question(request.messages, config)


def _explain(error: ValidationError) -> RequestError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if field == "stream":
        return RequestError(
            "streaming is not offered: answers are a few words; send stream=false", param="stream"
        )
    if first["type"] == "extra_forbidden":
        return RequestError(f"{field} is not supported; leave it out", param=field)
    return RequestError(f"{field}: {first['msg']}" if field else first["msg"], param=field or None)


def _question(messages: list[Message], config: ServeConfig) -> ChatQuestion:
    if len(messages) != 1 or messages[0].role != "user":
        roles = ", ".join(message.role for message in messages) or "none"
        raise RequestError(
            "send one user message with one image and one question "
            f"(the policy has its own system prompt); got: {roles}",
            param="messages",
        )
    parts = messages[0].content
    images = [part for part in parts if isinstance(part, ImagePart)]
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart)).strip()
    if len(images) != 1:
        raise RequestError(
            f"send exactly one image_url part; got {len(images)}", param="messages.0.content"
        )
    if not text:
        raise RequestError("send the question as a text part", param="messages.0.content")
    if len(text) > config.max_question_chars:
        raise RequestError(
            f"the question has {len(text)} characters; the limit is {config.max_question_chars}",
            param="messages.0.content",
        )
    return ChatQuestion(images[0].image_url.url, text)


def decode_data_url(url: str) -> bytes:
    """Decode an image in a base64 data: URL. Raises RequestError for any other or broken URL."""
    header, comma, payload = url.partition(",")
    if not comma or not header.startswith("data:image/") or not header.endswith(";base64"):
        raise RequestError(
            "image_url.url: expected data:image/<type>;base64,<bytes>",
            param="messages.0.content",
            code="invalid_image",
        )
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise RequestError(
            f"image_url.url: the base64 text is broken: {error}",
            param="messages.0.content",
            code="invalid_image",
        ) from None


def chat_completion(
    answer: ServedAnswer, *, request_id: str, model: str, created: int
) -> dict[str, Any]:
    """Return the response body in OpenAI's format.

    The additional key `awares` describes the episode: crops, token counts, weight version and more.
    """
    episode = answer.episode
    message: dict[str, Any] = {"role": "assistant", "content": episode.answer or ""}
    if episode.answer is None:
        message["refusal"] = f"the policy gave no answer: {episode.stop.value}"
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "length" if episode.stop is StopReason.LENGTH else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
        "awares": {
            "crops": list(episode.crops),
            "boxes": [list(box) for box in answer.boxes],
            "image_size": list(episode.image_size),
            "visual_tokens": episode.visual_tokens,
            "rtr_token": episode.rtr_token,
            "rtr_pixel": episode.rtr_pixel,
            "turns": len(episode.turns),
            "stop": episode.stop.value,
            "latency_s": answer.latency_s,
            "weight_version": answer.version,
        },
    }


def model_list(model: str, created: int) -> dict[str, Any]:
    """Return the response body of GET /v1/models."""
    return {
        "object": "list",
        "data": [{"id": model, "object": "model", "created": created, "owned_by": "awares"}],
    }
