"""`awares ask IMAGE "question"` asks a served policy over HTTP and prints its reply."""

import base64
import json
import mimetypes
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awares.crops import CropId
from awares.episode import StopReason
from awares.errors import DataError
from awares_platform.config.loopback import is_loopback
from awares_platform.method.chat_client import EndpointError

TIMEOUT_S = 120.0

_ENDS: dict[str, str] = {
    StopReason.ANSWER: "empty",
    StopReason.MALFORMED: "none: the policy's request for crops is malformed",
    StopReason.TURN_LIMIT: "none: the policy asked for more crops when only an answer was possible",
    StopReason.LENGTH: "none: the policy reached the token limit before the end of its answer",
    StopReason.ERROR: "none: the endpoint failed; its log names the reason",
}
"""Maps each StopReason to the text that replaces a missing answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The endpoint's reply to one question.

    `crops` holds the ids of the requested crops. `boxes` holds the boxes of the returned views, in
    pixels of the original image. `rtr_token` is `visual_tokens` divided by the visual tokens of the
    full image. `prompt_tokens` includes the visual tokens. `completion_tokens` counts the sampled
    tokens. `turns` is the number of assistant turns. `stop` is the StopReason of the episode.
    `latency_s` is the duration of the episode in seconds. `weight_version` is the version of the
    weights that sampled the last token.

    Example:
        Reply("7", ("0",), ((0, 0, 56, 56),), 8, 0.5, 31, 18, 2, "answer", 0.12, 0)
    """

    answer: str
    crops: tuple[str, ...]
    boxes: tuple[tuple[int, ...], ...]
    visual_tokens: int
    rtr_token: float
    prompt_tokens: int
    completion_tokens: int
    turns: int
    stop: str
    latency_s: float
    weight_version: int

    def lines(self) -> str:
        """Return the reply as several lines of text for the terminal."""
        looked = ", ".join(
            f"{_name(crop)} {list(box)}" for crop, box in zip(self.crops, self.boxes, strict=False)
        )
        direct = "none: the low-resolution view was enough"
        return (
            f"answer   {self.answer or _ENDS.get(self.stop, f'none ({self.stop})')}\n"
            f"crops    {looked or (direct if self.answer else 'none')}\n"
            f"tokens   {self.visual_tokens} visual ({self.rtr_token:.0%} of the full image's), "
            f"{self.prompt_tokens} prompt with them, {self.completion_tokens} sampled in "
            f"{self.turns} turn{'s' if self.turns > 1 else ''}\n"
            f"latency  {self.latency_s * 1000:.0f} ms"
            + (f"\nweights  version {self.weight_version}" if self.weight_version else "")
        )


def _name(crop: str) -> str:
    """Return a readable name for the id of one of the ten crops, and any other id unchanged."""
    return CropId(crop).name.lower().replace("_", " ") if crop in set(CropId) else crop


def run(
    image: Path, question: str, url: str = "http://127.0.0.1:8000", token_env: str = "AWARES_TOKEN"
) -> None:
    """Ask a question and print the reply. Raises the same errors as `ask`."""
    # In the locale C, Python decodes arguments as ASCII, although terminals send UTF-8.
    question = os.fsencode(question).decode("utf-8", "replace")
    print(ask(image, question, url, token_env).lines())


def ask(image: Path, question: str, url: str, token_env: str = "AWARES_TOKEN") -> Reply:
    """Ask the first model of the endpoint at `url` (http://host:port), and return its reply.

    If the endpoint needs a bearer token, the environment variable `token_env` must hold it. Raises
    DataError if the image file is unreadable. Raises EndpointError if the endpoint gives no usable
    answer or refuses the request.
    """
    try:
        data = base64.b64encode(image.read_bytes()).decode()
    except OSError as error:
        raise DataError(
            f"{image} cannot be read: {error.strerror}; give the path of an image file"
        ) from error
    base = url.rstrip("/").removesuffix("/v1")
    kind = mimetypes.guess_type(image.name)[0] or "image/png"
    content = [
        {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}},
        {"type": "text", "text": question},
    ]
    model = _call(f"{base}/v1/models", None, token_env)["data"][0]["id"]
    question_body = {"model": model, "messages": [{"role": "user", "content": content}]}
    return _reply(_call(f"{base}/v1/chat/completions", question_body, token_env))


def _reply(body: Mapping[str, Any]) -> Reply:
    extension, usage = body["awares"], body["usage"]
    return Reply(
        answer=body["choices"][0]["message"]["content"],
        crops=tuple(extension["crops"]),
        boxes=tuple(tuple(box) for box in extension["boxes"]),
        visual_tokens=extension["visual_tokens"],
        rtr_token=extension["rtr_token"],
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        turns=extension["turns"],
        stop=extension["stop"],
        latency_s=extension["latency_s"],
        weight_version=extension["weight_version"],
    )


def _call(url: str, body: Mapping[str, Any] | None, token_env: str) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    if token := os.environ.get(token_env, "").strip():
        headers["authorization"] = f"Bearer {token}"
    try:
        request = urllib.request.Request(
            url, None if body is None else json.dumps(body).encode(), headers
        )
        with opener(url).open(request, timeout=TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise EndpointError(f"{url} refused ({error.code}): {_reason(error, token_env)}") from error
    except urllib.error.URLError as error:
        raise EndpointError(
            f"no endpoint answers at {url} ({error.reason}); start one with `awares serve`, "
            "or name it with --url"
        ) from error
    except (TimeoutError, ValueError) as error:
        raise EndpointError(
            f"{url} gave no usable answer ({error}); is it an awares endpoint, "
            "such as http://127.0.0.1:8000?"
        ) from error


def opener(url: str) -> urllib.request.OpenerDirector:
    """Return an opener that uses proxies only if `url` is not on this machine."""
    proxies = {} if is_loopback(url) else None
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies))


def _reason(error: urllib.error.HTTPError, token_env: str) -> str:
    """Return the endpoint's own error message, or an explanation of its HTTP status."""
    if error.code == 401:
        return f"it wants a bearer token; put it into the environment variable {token_env}"
    text = error.read(4096).decode(errors="replace")
    try:
        return json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        seconds = error.headers.get("retry-after")
        later = f"; try again in {seconds} s" if seconds else ""
        return f"{text.strip() or error.reason}{later}"
