"""Builds the HTTP application of the endpoint: routes, bearer token, size limit and errors.

The application is plain ASGI, so tests can run it without Ray.
"""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from awares.episode import StopReason
from awares.errors import DataError, TooLong
from awares.generate import Sampling
from awares_platform.config.serve import ServeConfig
from awares_platform.serve.croploop import CropLoop, ServedAnswer
from awares_platform.serve.metrics import GONE, EndpointMetrics
from awares_platform.serve.openai import (
    ChatRequest,
    RequestError,
    chat_completion,
    decode_data_url,
    model_list,
    parse_request,
)
from awares_platform.serve.remote import RemoteImages

log = logging.getLogger(__name__)
Healthy = Callable[[], Awaitable[None]]


class Routes:
    """The three routes of the endpoint, which share one crop loop.

    `healthy` raises an error if the engine of the crop loop is dead.
    """

    def __init__(
        self,
        loop: CropLoop,
        config: ServeConfig,
        token: str | None,
        healthy: Healthy,
        remote: RemoteImages | None = None,
    ) -> None:
        self._loop, self._config, self._healthy = loop, config, healthy
        self._token = token.encode() if token else None
        self._remote = remote or RemoteImages(
            config.image_hosts, config.max_request_bytes, config.fetch_timeout_s
        )
        self._started = int(time.time())
        self._metrics = EndpointMetrics(loop.regions)

    async def health(self, request: Request) -> Response:
        """Answer GET /healthz. This route requires no token, so that probes need no secret."""
        try:
            await self._healthy()
        # Whatever error the check raises, the probe must get a status that it can read.
        except Exception as error:
            raise RequestError(f"not healthy: {error}", status=503, code="unhealthy") from error
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        self._authorize(request)
        return JSONResponse(model_list(self._config.model, self._started))

    async def chat(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions. The metrics count every request, even a failed one."""
        started = time.perf_counter()
        try:
            answer = await self._answer(request)
        except (Exception, asyncio.CancelledError) as error:
            self._metrics.refused(*_outcome(error), time.perf_counter() - started)
            raise
        self._metrics.answered(answer, time.perf_counter() - started)
        request_id = f"chatcmpl-{uuid.uuid4().hex}"
        return JSONResponse(
            chat_completion(
                answer, request_id=request_id, model=self._config.model, created=int(time.time())
            )
        )

    async def _answer(self, request: Request) -> ServedAnswer:
        self._authorize(request)
        body, question = parse_request(
            await read_body(request, self._config.max_request_bytes), self._config
        )
        answer = await self._loop(
            await self._image(question.image_url), question.text, self._sampling(body)
        )
        if answer.episode.stop is StopReason.ERROR:
            log.error("an episode failed: %s", answer.episode.error)
            raise RequestError(
                "the engine could not finish this episode; the replica's log says why",
                status=500,
                code="engine_error",
            )
        return answer

    async def _image(self, url: str) -> bytes:
        return decode_data_url(url) if url.startswith("data:") else await self._remote.fetch(url)

    def _sampling(self, body: ChatRequest) -> Sampling:
        asked = body.max_completion_tokens or body.max_tokens or self._config.max_tokens
        return Sampling(
            body.temperature, body.top_p, min(asked, self._config.max_tokens), body.seed
        )

    def _authorize(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode(), self._token
        ):
            raise RequestError(
                "send the header Authorization: Bearer <token>", status=401, code="unauthorized"
            )


async def read_body(request: Request, limit: int) -> bytes:
    """Read the request body. Raises RequestError (413) if the body exceeds `limit` bytes."""
    too_large = RequestError(
        f"the request is over {limit} bytes", status=413, code="request_too_large"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _error(error: RequestError) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def _as_request_error(error: DataError) -> RequestError:
    """Return `error` as a RequestError.

    The code of a RequestError stays. For any other error, the code tells whether the question is
    too long or the image is unusable.
    """
    if isinstance(error, RequestError):
        return error
    code = "context_length_exceeded" if isinstance(error, TooLong) else "invalid_image"
    return RequestError(str(error), param="messages.0.content", code=code)


def _outcome(error: BaseException) -> tuple[int, str]:
    """Return the HTTP status and the error code for a request that ends with `error`.

    The metrics count the request under this status and code. If the client is still connected, the
    response has the same status and code.
    """
    if isinstance(error, DataError):
        refusal = _as_request_error(error)
        return refusal.status, refusal.code
    gone = isinstance(error, asyncio.CancelledError | ClientDisconnect)
    return (GONE, "client_gone") if gone else (500, "internal_error")


async def on_data_error(request: Request, error: Exception) -> Response:
    """Answer a request that the endpoint refuses, for example because of a damaged image."""
    assert isinstance(error, DataError)
    return _error(_as_request_error(error))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown path or method."""
    assert isinstance(error, HTTPException)
    return _error(
        RequestError(
            f"{request.method} {request.url.path}: {error.detail}",
            status=error.status_code,
            code="no_such_route",
        )
    )


async def on_crash(request: Request, error: Exception) -> Response:
    """Answer 500 without internal details. Starlette then raises the error again for the log."""
    return _error(
        RequestError(
            "internal error; the replica's log says more", status=500, code="internal_error"
        )
    )


def create_app(routes: Routes) -> Starlette:
    """Build the ASGI application around the routes."""
    return Starlette(
        routes=[
            Route("/healthz", routes.health, methods=["GET"]),
            Route("/v1/models", routes.models, methods=["GET"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        ],
        exception_handlers={
            DataError: on_data_error,
            HTTPException: on_http_error,
            Exception: on_crash,
        },
    )
