"""Builds the HTTP application of the endpoint: routes, API keys and size limit.

POST /v1/chat/completions   Gate -- parse_request -- fetch images -- CropLoop -- Completion
GET  /v1/models, /v1/models/{model}, /healthz, /readyz, /metrics
GET  /                      the web page (page.py), and the files that it needs
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from awares.errors import DataError
from awares_platform.config.serve import ServeConfig
from awares_platform.serve.allotment import ShownView
from awares_platform.serve.croploop import CropLoop, Prepared, ServedAnswer
from awares_platform.serve.data_url import decode_data_url, is_data_url
from awares_platform.serve.errors import RequestError
from awares_platform.serve.gate import Gate, log_access
from awares_platform.serve.http_errors import (
    as_request_error,
    on_crash,
    on_http_error,
    on_known_error,
    outcome,
)
from awares_platform.serve.keys import ApiKey
from awares_platform.serve.metrics import OK, EndpointMetrics
from awares_platform.serve.openai import model_card, model_list, parse_request
from awares_platform.serve.page import Page
from awares_platform.serve.remote import RemoteImages
from awares_platform.serve.reply import DONE, Completion, event
from awares_platform.serve.talk import Tell

Healthy = Callable[[], Awaitable[None]]
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Routes:
    """The routes of the endpoint, which share one crop loop.

    `healthy` raises an error if the engine of the crop loop is dead.
    """

    def __init__(
        self,
        loop: CropLoop,
        config: ServeConfig,
        gate: Gate,
        healthy: Healthy,
        remote: RemoteImages | None = None,
    ) -> None:
        self._loop, self._config, self._healthy = loop, config, healthy
        self._gate = gate
        self._remote = remote or RemoteImages(
            config.image_hosts, config.max_request_bytes, config.fetch_timeout_s
        )
        self._started = int(time.time())
        self._metrics = EndpointMetrics(loop.regions)
        self.page = Page(loop, self._upload)

    async def health(self, request: Request) -> Response:
        """Answer GET /healthz and /readyz. They need no key, so that probes need no secret."""
        if (error := await self._reason()) is not None:
            raise _unhealthy(f"not healthy: {error}") from error
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Answer GET /metrics with the counts of this replica, in Prometheus's text format."""
        self._gate.caller(request)
        content, kind = self._metrics.page()
        return Response(content, media_type=kind)

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        self._gate.caller(request)
        return JSONResponse(model_list(self._config.model, self._started))

    async def model(self, request: Request) -> Response:
        """Answer GET /v1/models/{model}."""
        self._gate.caller(request)
        name = request.path_params["model"]
        if name != self._config.model:
            raise RequestError(
                f"model {name!r} is not served here; ask for {self._config.model!r}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return JSONResponse(model_card(name, self._started))

    async def completions(self, request: Request) -> Response:
        """Refuse POST /v1/completions, whose prompts have no images and no roles."""
        self._gate.caller(request)
        raise RequestError(
            "/v1/completions is not offered: send the question as a message to "
            "/v1/chat/completions",
            status=404,
            code="not_offered",
        )

    async def chat(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions. The metrics count every request, even a failed one."""
        started = time.perf_counter()
        key: ApiKey | None = None
        try:
            key = await self._gate.enter(request)
            prepared = await self._prepare(request)
            reply = self._reply(prepared)
            if prepared.question.stream:
                return HeldStream(self._stream(prepared, reply, key, started), prepared.release)
            try:
                answers = await self._play(prepared)
            finally:
                prepared.release()
        except (Exception, asyncio.CancelledError) as error:
            self._failed(error, key, started)
            raise
        await self._gate.spend(key, answers)
        self._answered(answers, key, started)
        return JSONResponse(reply.body(answers))

    async def _stream(
        self, prepared: Prepared, reply: Completion, key: ApiKey | None, started: float
    ) -> AsyncIterator[bytes]:
        """Yield the chunks of a streamed response. An error becomes an event before [DONE]."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def tell(views: tuple[ShownView, ...]) -> None:
            queue.put_nowait(reply.crops(views, prepared.sizes))

        async def play() -> list[ServedAnswer]:
            try:
                return await self._play(prepared, tell)
            finally:
                queue.put_nowait(None)

        task = asyncio.create_task(play())
        try:
            yield reply.opening(prepared.question.choices)
            while (chunk := await queue.get()) is not None:
                yield chunk
            answers = await task
            # These tokens count towards the key's limit even if the client disconnects now.
            await self._gate.spend(key, answers)
            for chunk in reply.closing(answers, include_usage=prepared.question.include_usage):
                yield chunk
            # If the client disconnects before the last chunk, the request counts as failed.
            self._answered(answers, key, started)
        except (Exception, asyncio.CancelledError, GeneratorExit) as error:
            self._failed(error, key, started)
            if not isinstance(error, Exception):
                raise
            crash = RequestError("internal error", status=500, code="internal_error")
            yield event((as_request_error(error) or crash).body())
            yield DONE
        finally:
            task.cancel()

    async def _play(self, prepared: Prepared, tell: Tell | None = None) -> list[ServedAnswer]:
        """Play the conversations. If the engine is dead, raise RequestError (503)."""
        try:
            return await self._loop.play(prepared, tell)
        except RequestError as error:
            if error.status == 500 and await self._reason() is not None:
                message = "the engine of this replica failed; send the request again"
                raise _unhealthy(message) from error
            raise

    async def _reason(self) -> Exception | None:
        """Return why the engine cannot answer, or None."""
        try:
            await self._healthy()
        # Catch every error of the check, so that the client gets a proper HTTP status.
        except Exception as error:
            return error
        return None

    def _answered(
        self, answers: Sequence[ServedAnswer], key: ApiKey | None, started: float
    ) -> None:
        seconds = time.perf_counter() - started
        self._metrics.answered(answers, seconds)
        log_access(key, 200, OK, seconds, answers)

    def _failed(self, error: BaseException, key: ApiKey | None, started: float) -> None:
        status, code = outcome(error)
        seconds = time.perf_counter() - started
        self._metrics.refused(status, code, seconds)
        log_access(key, status, code, seconds)

    async def _upload(self, request: Request) -> bytes:
        """Check the key of a request and count the request, then return its body."""
        await self._gate.enter(request)
        return await read_body(request, self._config.max_request_bytes)

    async def _prepare(self, request: Request) -> Prepared:
        body = await read_body(request, self._config.max_request_bytes)
        # In the event loop, the validation of a large body would block all other requests.
        question = await asyncio.to_thread(parse_request, body, self._config)
        images = [await self._image(url) for url in question.urls]
        return await self._loop.prepare(question, images)

    async def _image(self, url: str) -> bytes:
        if is_data_url(url):
            return await asyncio.to_thread(decode_data_url, url, "messages")
        return await self._remote.fetch(url)

    def _reply(self, prepared: Prepared) -> Completion:
        return Completion(
            f"chatcmpl-{uuid.uuid4().hex}",
            self._config.model,
            int(time.time()),
            self._loop.chat,
            logprobs=prepared.question.logprobs,
        )


def _unhealthy(message: str) -> RequestError:
    return RequestError(message, status=503, code="unhealthy", retry_after_s=1)


class HeldStream(StreamingResponse):
    """A response that streams events. It always calls `release` at its end, even after an error."""

    def __init__(self, content: AsyncIterator[bytes], release: Callable[[], None]) -> None:
        kind = "text/event-stream; charset=utf-8"
        super().__init__(content, media_type=kind, headers=_STREAM_HEADERS)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def read_body(request: Request, limit: int) -> bytes:
    """Read the request body. Raises RequestError (413) if the body exceeds `limit` bytes."""
    too_large = RequestError(
        f"the request is over {limit} bytes", status=413, code="request_too_large"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)


def create_app(routes: Routes) -> Starlette:
    """Build the ASGI application around the routes."""
    return Starlette(
        routes=[
            *routes.page.routes(),
            Route("/healthz", routes.health, methods=["GET"]),
            Route("/readyz", routes.health, methods=["GET"]),
            Route("/metrics", routes.metrics, methods=["GET"]),
            Route("/v1/models", routes.models, methods=["GET"]),
            Route("/v1/models/{model:path}", routes.model, methods=["GET"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
        ],
        exception_handlers={
            DataError: on_known_error,
            HTTPException: on_http_error,
            Exception: on_crash,
        },
    )
