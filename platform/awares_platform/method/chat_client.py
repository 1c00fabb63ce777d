"""Asks an OpenAI-compatible chat endpoint. Each request returns one text, decoded greedily."""

import asyncio
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.request import getproxies_environment, proxy_bypass

import httpx
import stamina

from awares.errors import AwaresError, ConfigError
from awares_platform.config.curate import EndpointConfig
from awares_platform.config.loopback import is_loopback
from awares_platform.method.rate_limit import RateLimit
from awares_platform.method.spoken import Unreadable

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({400, 413, 422})
"""The HTTP statuses with which an endpoint refuses one request, but may accept other requests."""


class EndpointError(AwaresError):
    """A chat endpoint cannot be used. The message names the URL of the endpoint."""


class EndpointBusy(EndpointError):
    """The endpoint is unreachable, busy or failing.

    The client retries a request after this error until the retry budget is spent. `retry_after_s`
    is the number of seconds that the endpoint asks the client to wait, or 0.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class EndpointUsage:
    """The number of replies of an endpoint, and the tokens that the endpoint has counted.

    Replies from a ReplyMemory count, too, because they were paid for earlier.

    Example:
        EndpointUsage(requests=2, input_tokens=610, output_tokens=14)
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, reply: "KeptReply") -> None:
        """Count one reply and its tokens."""
        self.requests += 1
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply of an endpoint, as a ReplyMemory stores it.

    Example:
        KeptReply("2")
    """

    content: str | None
    """The reply, or None if the message has no content."""
    reason: str = ""
    """Why the endpoint refuses the question, or ""."""
    message: str = ""
    """Error message of the refusal, or ""."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """Price of the reply in the currency of the endpoint's prices."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    def text(self) -> str | None:
        """Return the content. Raises Unreadable if the endpoint refuses the question."""
        if self.reason:
            raise Unreadable(self.reason, self.message)
        return self.content


class ReplyMemory(Protocol):
    """Remembers the replies of endpoints by a digest of the question.

    - `kept` returns the reply, or None.
    - `keep` stores a reply.
    - `doubt` notes that a reply is unreadable.
    - `spent` returns an error if the budget is spent.
    """

    def kept(self, key: str) -> KeptReply | None: ...

    def spent(self) -> AwaresError | None: ...

    async def keep(self, key: str, reply: KeptReply) -> None: ...

    def doubt(self, key: str) -> None: ...


Fill = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]


class ChatEndpoint:
    """A client of one chat endpoint, and an async context manager.

    Questions whose replies are in `memory` are not sent. `fill` replaces the hashes of images in
    the messages by the images.

    Example:
        async with ChatEndpoint(config) as endpoint:
            text = await endpoint.complete([{"role": "user", "content": "2 + 2?"}])
    """

    def __init__(
        self,
        config: EndpointConfig,
        memory: ReplyMemory | None = None,
        fill: Fill | None = None,
    ) -> None:
        self._config = config
        self._memory, self._fill = memory, fill
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._limit = asyncio.Semaphore(config.in_flight)
        self._client = _client(config)
        self._pace = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self._takes_schema = True
        self._draining = asyncio.Lock()
        self.usage = EndpointUsage()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(
        self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None = None
    ) -> str | None:
        """Return the assistant's reply to `messages`, or None if the message has no content.

        `schema` is the JSON schema of the reply. A server that refuses schemas gets none.

        Raises EndpointBusy if no attempt succeeds within the retry budget.
        Raises EndpointError if the endpoint cannot be used.
        Raises Unreadable if the endpoint refuses only these messages.
        Raises the error of `ReplyMemory.spent` if the budget is spent.
        """
        key = self._key(messages, schema)
        reply = self._memory.kept(key) if self._memory else None
        if reply is None:
            reply = await self._paid(key, messages, schema)
        self.usage.add(reply)
        return reply.text()

    async def _paid(
        self, key: str, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None
    ) -> KeptReply:
        """Ask the endpoint, store the reply in the memory, and return the reply.

        Raises the error that `ReplyMemory.spent` returns, if there is one.
        """
        async with self._limit:
            error = self._memory.spent() if self._memory else None
            if error is None:
                sent = await asyncio.to_thread(self._fill, messages) if self._fill else messages
                reply = await self._retried(sent, schema)
                if self._memory:
                    await self._memory.keep(key, reply)
                return reply
        await self._drain()
        raise error

    async def _drain(self) -> None:
        """Wait until no request is in flight, so that the memory keeps each paid reply."""
        async with self._draining:
            for _ in range(self._config.in_flight):
                await self._limit.acquire()
            for _ in range(self._config.in_flight):
                self._limit.release()

    def doubt(
        self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None
    ) -> None:
        """Tell the memory that the reply to `messages` is unreadable."""
        if self._memory:
            self._memory.doubt(self._key(messages, schema))

    def _key(self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None) -> str:
        question = [self._config.model, self._config.max_tokens, schema, list(messages)]
        return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()

    async def _retried(
        self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None
    ) -> KeptReply:
        end = time.monotonic() + self._config.retry_budget_s
        async for attempt in stamina.retry_context(
            _wait, attempts=None, timeout=self._config.retry_budget_s
        ):
            with attempt:
                try:
                    return await self._request(messages, schema)
                except EndpointBusy as error:
                    self._pace.pause(error.retry_after_s)
                    _require_time(error, end - time.monotonic())
                    raise
        raise AssertionError("unreachable: the retry loop returns or raises")

    async def _request(
        self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None
    ) -> KeptReply:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": config.max_tokens,
        }
        if schema and self._takes_schema:
            form = {"name": "reply", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        response = await self._post(body)
        if response.status_code in REFUSED and "response_format" in body:
            del body["response_format"]
            response = await self._post(body)
            self._takes_schema = self._takes_schema and response.status_code != 200
        return self._reply(response)

    async def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        await self._pace.wait()
        try:
            response = await self._client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise EndpointBusy(
                f"{self._url} is unreachable ({type(error).__name__}: {error}): "
                "start the endpoint, or correct its url"
            ) from error
        if response.status_code in BUSY:
            raise EndpointBusy(
                f"{self._url} answered {response.status_code}: lower in_flight or raise "
                f"retry_budget_s; it said: {response.text[:200]}",
                retry_after(response.headers.get("retry-after", "")),
            )
        return response

    def _reply(self, response: httpx.Response) -> KeptReply:
        """Return the reply, and count its tokens for the rate limit."""
        status, said = response.status_code, response.text[:200]
        if status in REFUSED and _is_filter(response.text):
            return KeptReply(None, "filter", f"{self._url} filters the question: {said}")
        if status in REFUSED:
            return KeptReply(
                None, "request", f"{self._url} refuses the question with {status}: {said}"
            )
        if status != 200:
            raise EndpointError(
                f"{self._url} refused model {self._config.model!r} with {status}: {said}; "
                "check the endpoint's model and api_key_variable"
            )
        try:
            found = response.json()
            choice = found["choices"][0]
            content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
            counted = found.get("usage") or {}
            asked = int(counted.get("prompt_tokens") or 0)
            said_tokens = int(counted.get("completion_tokens") or 0)
            self._pace.spend(counted.get("total_tokens") or 0)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EndpointError(
                f"{self._url} does not speak the OpenAI chat protocol: {said}; "
                "set the endpoint's url to the base of its API, such as http://host:8000/v1"
            ) from error
        if choice.get("finish_reason") == "content_filter":
            refused = ("filter", f"{self._url} filters its reply: {said}")
        elif refusal and not content:
            refused = ("refusal", f"{self._url} refuses: {str(refusal)[:80]!r}")
        else:
            refused = ("", "")
        text = content if isinstance(content, str) and not refused[0] else None
        cost = self._config.cost(asked, said_tokens)
        return KeptReply(text, *refused, asked, said_tokens, cost)


def _wait(error: Exception) -> bool | float:
    """Return how long to wait before the request is sent again, in seconds.

    True lets the retry loop choose the time. False makes it raise the error.
    """
    return isinstance(error, EndpointBusy) and (error.retry_after_s or True)


def _require_time(error: EndpointBusy, left_s: float) -> None:
    """Raise EndpointError if the endpoint asks to wait longer than the retry budget lasts."""
    left_s = max(left_s, 0.0)
    if error.retry_after_s > left_s:
        raise EndpointError(
            f"{error}; it asks to wait {error.retry_after_s:.0f} s, and {left_s:.0f} s of "
            "retry_budget_s are left: raise it, or run the job again later"
        ) from error


def retry_after(value: str) -> float:
    """Return the seconds that a Retry-After header states as a number or a date, or else 0."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _is_filter(text: str) -> bool:
    return "content_filter" in text or "content management policy" in text


def _client(config: EndpointConfig) -> httpx.AsyncClient:
    """Return an HTTP client for the endpoint that `config` names.

    An endpoint on this machine or in NO_PROXY is asked without a proxy.

    Raises ConfigError if httpx cannot use the proxy, or if `config.api_key_variable` is not set.
    """
    host = httpx.URL(config.url).host
    try:
        return httpx.AsyncClient(
            timeout=config.timeout_s,
            headers=_authorisation(config),
            limits=httpx.Limits(max_connections=config.in_flight),
            verify=httpx.create_ssl_context(),
            trust_env=not (is_loopback(config.url) or proxy_bypass(host)),
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        names = [name for name in getproxies_environment() if name != "no"]
        raise ConfigError(
            f"{config.url} cannot be asked through the proxy of {_variables(names)} ({error}); "
            "name an HTTP proxy there, or add the endpoint's host to NO_PROXY"
        ) from error


def _variables(schemes: Sequence[str]) -> str:
    return ", ".join(f"{scheme}_proxy".upper() for scheme in sorted(schemes)) or "the environment"


def _authorisation(config: EndpointConfig) -> dict[str, str]:
    if not config.api_key_variable:
        return {}
    key = os.environ.get(config.api_key_variable)
    if not key:
        raise ConfigError(
            f"api_key_variable names {config.api_key_variable}, which is not set: "
            "export it, or clear the setting"
        )
    return {"Authorization": f"Bearer {key}"}
