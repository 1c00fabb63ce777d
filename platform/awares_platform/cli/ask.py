"""`awares ask IMAGE "question"` asks a served policy over HTTP and prints the reply as it comes."""

import base64
import json
import mimetypes
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from awares.crops import CropId
from awares.errors import DataError
from awares_platform.config.loopback import is_loopback
from awares_platform.method.chat_client import EndpointError

TIMEOUT_S = 120.0
_FIGURES = (
    "visual_tokens",
    "rtr_token",
    "prompt_tokens",
    "completion_tokens",
    "turns",
    "stop",
    "latency_s",
    "weight_version",
)
"""The fields of a Reply that the endpoint sends under the same names."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The endpoint's reply to one question.

    Example:
        Reply("7", ("0",), ((0, 0, 56, 56),), 8, 0.5, 31, 18, 2, "answer", 0.12, 0)
    """

    answer: str
    crops: tuple[str, ...]
    """Ids of the requested crops."""
    boxes: tuple[tuple[int, ...], ...]
    """Boxes of the returned views, in pixels of the original image."""
    visual_tokens: int
    rtr_token: float
    """`visual_tokens` divided by the number of visual tokens of the full image."""
    prompt_tokens: int
    """Number of prompt tokens, with the visual tokens."""
    completion_tokens: int
    """Number of sampled tokens."""
    turns: int
    """Number of the policy's turns. Each turn is one call of the engine."""
    stop: str
    """"length" if a token limit has cut the answer, and "answer" otherwise."""
    latency_s: float
    """Duration of the episode in seconds."""
    weight_version: int
    """Version of the weights that sampled the last token."""

    def lines(self) -> str:
        """Return the reply as several lines of text for the terminal."""
        views = list(zip(self.crops, self.boxes, strict=False))
        return f"{_crops(views)}\nanswer   {self.answer}\n{self.figures()}"

    def figures(self) -> str:
        """Return the lines after the answer: numbers of tokens, the latency, and so on."""
        return (
            ("cut      at the token limit\n" if self.stop == "length" else "")
            + f"tokens   {self.visual_tokens} visual ({self.rtr_token:.0%} of the full image's), "
            f"{self.prompt_tokens} prompt with them, {self.completion_tokens} sampled in "
            f"{self.turns} turn{'s' if self.turns > 1 else ''}\n"
            f"latency  {self.latency_s * 1000:.0f} ms"
            + (f"\nweights  version {self.weight_version}" if self.weight_version else "")
        )


class Transcript:
    """Collects what the endpoint has sent so far in a stream of events.

    Example:
        transcript = Transcript()
        for event in events:
            print(transcript.take(event), end="")
        transcript.reply()
    """

    def __init__(self) -> None:
        self._views: list[tuple[str, Sequence[int]]] = []
        self._answer, self._usage, self._awares = "", {}, {}

    def take(self, event: Mapping[str, Any]) -> str:
        """Read one event, and return the new text for the terminal.

        Raises EndpointError if the endpoint reports an error.
        """
        if error := event.get("error"):
            raise EndpointError(f"the endpoint failed: {error['message']}")
        self._usage = event.get("usage") or self._usage
        extension = event.get("awares") or {}
        if extension.get("event") == "crops":
            views = [(view["region"], view["box"]) for view in extension["views"]]
            self._views += views
            return _crops(views) + "\n"
        self._awares = extension or self._awares
        return self._append("".join(_pieces(event)))

    def _append(self, piece: str) -> str:
        if not piece:
            return ""
        lead = "" if self._answer else ("" if self._views else _crops(()) + "\n") + "answer   "
        self._answer += piece
        return lead + piece

    def reply(self) -> Reply:
        """Return the whole reply. Raises EndpointError if the stream has ended too early."""
        figures = {**self._usage, **self._awares}
        try:
            return Reply(
                answer=self._answer,
                crops=tuple(region for region, _ in self._views),
                boxes=tuple(tuple(box) for _, box in self._views),
                **{name: figures[name] for name in _FIGURES},
            )
        except KeyError as error:
            raise EndpointError(
                f"the endpoint's reply lacks {error}; is it an awares endpoint?"
            ) from error


def _pieces(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of the answer that an event contains."""
    for choice in event.get("choices", ()):
        yield choice.get("delta", {}).get("content") or ""


def _crops(views: Sequence[tuple[str, Sequence[int]]]) -> str:
    looked = ", ".join(f"{_name(region)} {list(box)}" for region, box in views)
    return f"crops    {looked or 'none: the low-resolution view was enough'}"


def _name(crop: str) -> str:
    """Return a readable name for the id of one of the ten crops, and any other id unchanged."""
    return CropId(crop).name.lower().replace("_", " ") if crop in set(CropId) else crop


def run(
    image: Path,
    question: str,
    endpoint: str = "http://127.0.0.1:8000",
    token_env: str = "AWARES_TOKEN",
) -> None:
    """Ask a question, and print the reply as it comes. Raises the same errors as `ask`."""
    # In the locale C, Python decodes arguments as ASCII, although terminals send UTF-8.
    question = os.fsencode(question).decode("utf-8", "replace")
    reply = ask(image, question, endpoint, token_env, partial(print, end="", flush=True))
    print(f"\n{reply.figures()}")


def ask(
    image: Path,
    question: str,
    url: str,
    token_env: str = "AWARES_TOKEN",
    tell: Callable[[str], object] = len,
) -> Reply:
    """Ask the first model of the endpoint at `url` (http://host:port), and return its reply.

    `tell` gets each piece of text. The environment variable `token_env` holds the bearer token.

    Raises DataError for an unreadable image, and EndpointError without a usable answer.
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
    with _call(f"{base}/v1/models", None, token_env) as response:
        model = json.load(response)["data"][0]["id"]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    transcript = Transcript()
    for event in _events(f"{base}/v1/chat/completions", body, token_env):
        if text := transcript.take(event):
            tell(text)
    return transcript.reply()


def _events(url: str, body: Mapping[str, Any], token_env: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON bodies of the server-sent events until the end of the stream."""
    with _call(url, body, token_env) as response:
        for line in response:
            kind, _, data = line.decode().partition(":")
            if kind == "data" and data.strip() != "[DONE]":
                yield json.loads(data)


@contextmanager
def _call(url: str, body: Mapping[str, Any] | None, token_env: str) -> Iterator[Any]:
    """Send a request and yield the response. Raises EndpointError if sending or reading fails."""
    headers = {"content-type": "application/json"}
    if token := os.environ.get(token_env, "").strip():
        headers["authorization"] = f"Bearer {token}"
    try:
        request = urllib.request.Request(
            url, None if body is None else json.dumps(body).encode(), headers
        )
        with opener(url).open(request, timeout=TIMEOUT_S) as response:
            yield response
    except urllib.error.HTTPError as error:
        raise EndpointError(f"{url} refused ({error.code}): {_reason(error, token_env)}") from error
    except urllib.error.URLError as error:
        raise EndpointError(
            f"no endpoint answers at {url} ({error.reason}); start one with `awares serve`, "
            "or name it with --endpoint"
        ) from error
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise EndpointError(
            f"{url} gave no usable answer ({reason}); is it an awares endpoint, "
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
