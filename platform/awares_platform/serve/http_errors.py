"""Turns every failure of a request into a JSON response in OpenAI's error format."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from awares.errors import DataError, TooLong
from awares_platform.serve.errors import RequestError
from awares_platform.serve.metrics import GONE


def error_response(error: RequestError, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the response for an error, with `headers` added."""
    own = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after_s is not None:
        own["retry-after"] = str(error.retry_after_s)
    return JSONResponse(error.body(), status_code=error.status, headers={**own, **(headers or {})})


def as_request_error(error: BaseException) -> RequestError | None:
    """Return the error that a client gets for `error`, or None for a bug or a disconnection.

    A RequestError is returned unchanged. Any other DataError means a too long question or a bad
    image.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, DataError):
        code = "context_length_exceeded" if isinstance(error, TooLong) else "invalid_image"
        return RequestError(str(error), param="messages", code=code)
    return None


def outcome(error: BaseException) -> tuple[int, str]:
    """Return the HTTP status and the error code for a request that ends with `error`.

    The client gets both, unless a stream has begun with status 200. An error event then holds the
    code.
    """
    if (refusal := as_request_error(error)) is not None:
        return refusal.status, refusal.code
    gone = isinstance(error, asyncio.CancelledError | ClientDisconnect | GeneratorExit)
    return (GONE, "client_gone") if gone else (500, "internal_error")


async def on_known_error(request: Request, error: Exception) -> Response:
    """Answer a request that the endpoint refuses, or whose engine failed."""
    refusal = as_request_error(error)
    assert refusal is not None, "the handler is for DataError"
    return error_response(refusal)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown path or method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    offered = f"; use {headers['Allow']}" if "Allow" in headers else ""
    return error_response(
        RequestError(
            f"{request.method} {request.url.path}: {error.detail}{offered}",
            status=error.status_code,
            code="no_such_route",
        ),
        headers,
    )


async def on_crash(request: Request, error: Exception) -> Response:
    """Answer 500 without internal details. Starlette then raises the error again for the log."""
    return error_response(
        RequestError(
            "internal error; the replica's log says more", status=500, code="internal_error"
        )
    )
