"""Passes only complete requests on to Ray Serve's proxy, and turns all errors into JSON.

    client --> Front: read the whole body --> Serve's proxy --> replica
                 ^                              |
                 +-- JSON instead of text ------+   503 with Retry-After if there is no answer

A client that sends its body slowly thus occupies neither Serve's queue nor a replica.
"""

import asyncio
import json
import uuid
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from awares_platform.serve.errors import RequestError
from awares_platform.serve.outlook import Availability, Outlook

MOST_BODY = 64 * 2**20
"""The largest body that a proxy reads, in bytes. serve.max_request_bytes cannot exceed it."""
MOST_HELD = 2**29
"""The largest total size of the bodies that one proxy holds, in bytes. Further requests get 503."""
BODY_S = 15.0
"""Seconds within which a body must arrive. Each `RATE` bytes that arrive add one second."""
RATE = 64 * 1024
_PROBES = ("/healthz", "/readyz")
_STEP_S = 1.0
_RETRY_S = 1
_REQUEST_ID = b"x-request-id"
_KEPT = (b"retry-after", _REQUEST_ID)

HeaderPair = tuple[bytes, bytes]


class Front:
    """The ASGI middleware around Serve's proxy, `app`.

    It passes on only complete requests, and turns all errors into JSON.

    Example:
        Front(app, Outlook(ready, draining, report))
    """

    def __init__(self, app: ASGIApp, outlook: Outlook) -> None:
        self._app, self._outlook = app, outlook
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._outlook.watch()
        answer = FrontReply(send, scope["headers"])
        if scope["path"] in _PROBES and scope["method"] in ("GET", "HEAD"):
            await self._probe(answer)
            return
        body = bytearray()
        try:
            await self._read(scope, receive, body)
            await self._pass_on(scope, Replayed(body, receive), answer)
        except RequestError as error:
            await answer.refuse(error)
        finally:
            self._held -= len(body)

    async def _probe(self, answer: "FrontReply") -> None:
        """Answer /healthz and /readyz. Do not ask a replica, because a healthy one may be busy."""
        if self._outlook.stopping:
            await answer.refuse(_closing())
        elif await self._outlook.availability() is Availability.READY:
            await answer.send_json(200, {"status": "ok"})
        else:
            await answer.refuse(_away())

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Read the whole body.

        Raises RequestError if this body is too large or too slow, if the bodies of all requests
        together are too large, or if the client disconnects.
        """
        _check_length(scope["headers"])
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(BODY_S) as limit:
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError("the client left", status=400, code="client_gone")
                    self._hold(body, message.get("body", b""))
                    more = message.get("more_body", False)
                    limit.reschedule(started + BODY_S + len(body) / RATE)
        except TimeoutError:
            raise RequestError(
                f"the body of the request came slower than {RATE} bytes a second",
                status=408,
                code="slow_body",
            ) from None

    def _hold(self, body: bytearray, piece: bytes) -> None:
        if len(body) + len(piece) > MOST_BODY:
            raise _too_large()
        if self._held + len(piece) > MOST_HELD:
            raise RequestError(
                "the endpoint reads too many bodies at once; try again later",
                status=503,
                code="overloaded",
            )
        self._held += len(piece)
        body += piece

    async def _pass_on(self, scope: Scope, replayed: "Replayed", answer: "FrontReply") -> None:
        """Let Serve answer. Raises RequestError if no replica answers.

        During an update, a request waits for the first new replica. If the update takes too long,
        the request is refused.
        """
        if self._outlook.stopping:
            raise _closing()
        self._outlook.ongoing += 1
        task = asyncio.ensure_future(self._app(scope, replayed, answer.pass_on))
        try:
            while not (await asyncio.wait({task}, timeout=_STEP_S))[0]:
                if answer.started:
                    continue
                if await self._outlook.availability() is Availability.AWAY:
                    raise _away()
        finally:
            task.cancel()
            self._outlook.ongoing -= 1
        # If the task failed, Serve has logged why. The client only learns that it may try again.
        await asyncio.wait({task})
        if not answer.started and not replayed.left:
            raise _away()
        if not task.cancelled():
            task.exception()


class Replayed:
    """An ASGI `receive` function. It first returns `body`, then further messages of the client.

    `left` says whether the client has disconnected.
    """

    def __init__(self, body: bytearray, receive: Receive) -> None:
        self._body: bytearray | None = body
        self._receive = receive
        self.left = False

    async def __call__(self) -> Message:
        """Return the next message."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": bytes(body), "more_body": False}
        message = await self._receive()
        self.left = self.left or message["type"] == "http.disconnect"
        return message


class FrontReply:
    """Sends the response to one request. `asked` holds the request's headers."""

    def __init__(self, send: Send, asked: Sequence[HeaderPair] = ()) -> None:
        self._send, self._asked = send, asked
        self.started = False
        self._whole = False

    async def pass_on(self, message: Message) -> None:
        """Send one ASGI message of Serve. If it begins a plain-text error, send JSON instead."""
        if self._whole:
            return
        if message["type"] == "http.response.start" and _is_plain_error(message):
            await self.refuse(_translated(message["status"]), message["headers"])
            return
        self.started = True
        await self._send(message)

    async def refuse(self, error: RequestError, headers: Sequence[HeaderPair] = ()) -> None:
        """Send an error, unless a response has begun."""
        if self.started:
            return
        kept = [(name, value) for name, value in headers if name.lower() in _KEPT]
        if error.status == 503 and not any(name.lower() == b"retry-after" for name, _ in kept):
            kept.append((b"retry-after", str(_RETRY_S).encode()))
        if error.status in (408, 413):
            kept.append((b"connection", b"close"))
        await self.send_json(error.status, error.body(), kept)

    async def send_json(
        self, status: int, body: object, headers: Sequence[HeaderPair] = ()
    ) -> None:
        """Send a complete JSON response."""
        self.started = self._whole = True
        content = json.dumps(body).encode()
        if not any(name.lower() == _REQUEST_ID for name, _ in headers):
            headers = [*headers, (_REQUEST_ID, self._request_id())]
        whole = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            *headers,
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": whole})
        await self._send({"type": "http.response.body", "body": content})

    def _request_id(self) -> bytes:
        sent = [value for name, value in self._asked if name.lower() == _REQUEST_ID]
        return sent[0] if sent else str(uuid.uuid4()).encode()


def _is_plain_error(message: Message) -> bool:
    kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
    return message["status"] >= 400 and not any(b"json" in kind for kind in kinds)


def _translated(status: int) -> RequestError:
    """Return the error that the client gets instead of Serve's plain-text error."""
    if status == 404:
        # The application has the route "/". Serve answers 404 only if there is no application.
        return _away()
    if status in (429, 503):
        return RequestError(
            "the endpoint has too many requests; try again later",
            status=status,
            code="overloaded",
        )
    return RequestError("the endpoint could not answer", status=status, code="internal_error")


def _away() -> RequestError:
    return RequestError(
        "no replica can answer now; try again later", status=503, code="unavailable"
    )


def _closing() -> RequestError:
    return RequestError("the endpoint stops; try another one", status=503, code="stopping")


def _too_large() -> RequestError:
    return RequestError(
        f"the body is over {MOST_BODY} bytes; send smaller images",
        status=413,
        code="request_too_large",
    )


def _check_length(headers: Sequence[HeaderPair]) -> None:
    """Raise RequestError if the header Content-Length announces a body that is too large."""
    for name, value in headers:
        if name.lower() == b"content-length" and value.isdigit() and int(value[:20]) > MOST_BODY:
            raise _too_large()
