"""Asks an OpenAI-compatible chat endpoint. Each request returns one text, decoded greedily."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies_environment, proxy_bypass

import httpx
import stamina

from awares.errors import AwaresError, ConfigError
from awares_platform.config.curate import EndpointConfig
from awares_platform.config.loopback import is_loopback

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class EndpointError(AwaresError):
    """A chat endpoint cannot be used. The message names the URL of the endpoint."""


class EndpointBusy(EndpointError):
    """The endpoint is unreachable, busy or failing.

    The client retries a request after this error until the retry budget is spent.
    """


class ChatEndpoint:
    """A client of one chat endpoint, and an async context manager.

    The client sends at most `config.in_flight` requests at a time.

    Example:
        async with ChatEndpoint(config) as endpoint:
            text = await endpoint.complete([{"role": "user", "content": "2 + 2?"}])
    """

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._limit = asyncio.Semaphore(config.in_flight)
        self._client = _client(config)

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

    async def complete(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the assistant's reply to `messages`.

        Raises EndpointBusy if no attempt succeeds within the retry budget. Raises EndpointError if
        the endpoint refuses the request or does not speak the chat protocol.
        """
        async with self._limit:
            async for attempt in stamina.retry_context(
                EndpointBusy, attempts=None, timeout=self._config.retry_budget_s
            ):
                with attempt:
                    return await self._request(messages)
        raise AssertionError("unreachable: the retry loop returns or raises")

    async def _request(self, messages: Sequence[Mapping[str, Any]]) -> str:
        config = self._config
        url = f"{config.url.rstrip('/')}/chat/completions"
        body = {
            "model": config.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": config.max_tokens,
        }
        try:
            response = await self._client.post(url, json=body)
        except httpx.TransportError as error:
            raise EndpointBusy(
                f"{url} is unreachable ({type(error).__name__}: {error}): "
                "start the endpoint, or correct its url"
            ) from error
        if response.status_code in BUSY:
            raise EndpointBusy(
                f"{url} answered {response.status_code}: lower in_flight or raise retry_budget_s; "
                f"it said: {response.text[:200]}"
            )
        if response.status_code != 200:
            raise EndpointError(
                f"{url} refused model {config.model!r} with {response.status_code}: "
                f"{response.text[:200]}; check the endpoint's model and api_key_variable"
            )
        return _text(response, url)


def _text(response: httpx.Response, url: str) -> str:
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise EndpointError(
            f"{url} does not speak the OpenAI chat protocol: {response.text[:200]}; "
            "set the endpoint's url to the base of its API, such as http://host:8000/v1"
        ) from error
    return text or ""


def _client(config: EndpointConfig) -> httpx.AsyncClient:
    """Return an HTTP client for the endpoint that `config` names.

    The client asks an endpoint on this machine directly. It asks any other endpoint through the
    proxy that environment variables name, if there is one. NO_PROXY lists the hosts for which it
    uses no proxy. Raises ConfigError if httpx cannot use the proxy, or if the variable
    `config.api_key_variable` is not set.
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
