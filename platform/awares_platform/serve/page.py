"""Serves the page at `/`, on which a person asks the policy about an image.

GET  /, /page.css, /page.js    the page; it asks /v1/chat/completions as any client does
GET  /examples                 questions of the AwaRes-Mini data set, with image URLs
GET  /examples/{number}.png    the images, which the generator of AwaRes-Mini draws
POST /low-view                 an image file -> the low-resolution view of the policy, as PNG
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from awares_platform.serve.croploop import CropLoop
from awares_platform.serve.errors import RequestError

Read = Callable[[Request], Awaitable[bytes]]
_ASSETS = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Maps each path below / to a file of this package and its media type."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
_KINDS = ("digit on/small", "sum/small", "larger/small", "color", "digit on/large", "place")
"""The kinds of questions on the page. The first three need crops, as their digits are small."""
_DRAWN, _SEED = 64, 20261130


class Page:
    """The routes of the page.

    `read` checks the client's key in a request, and returns the body of the request.

    Example:
        Starlette(routes=Page(loop, read).routes())
    """

    def __init__(self, loop: CropLoop, read: Read) -> None:
        self._loop, self._read = loop, read

    def routes(self) -> list[Route]:
        """Return the routes. Only /low-view needs a client's key, because it does costly work."""
        return [
            *(Route(f"/{path}", asset, methods=["GET"]) for path in _ASSETS),
            Route("/examples", example_list, methods=["GET"]),
            Route("/examples/{number}.png", example_image, methods=["GET"]),
            Route("/low-view", self.low_view, methods=["POST"]),
        ]

    async def low_view(self, request: Request) -> Response:
        """Answer POST /low-view."""
        view = await self._loop.low_view(await self._read(request))
        return Response(view, media_type="image/png", headers=HEADERS)


async def asset(request: Request) -> Response:
    """Answer GET for a file of the page. If the browser has cached the file, answer 304."""
    name, kind = _ASSETS[request.url.path.rpartition("/")[2]]
    content = _file(name)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


async def example_list(request: Request) -> Response:
    """Answer GET /examples. If AwaRes-Mini's packages are not installed, the list is empty."""
    rows = [
        {"image": f"examples/{number}.png", "question": question}
        for number, (_, question) in enumerate(await asyncio.to_thread(examples))
    ]
    return JSONResponse(rows, headers=HEADERS)


async def example_image(request: Request) -> Response:
    """Answer GET /examples/{number}.png."""
    found = await asyncio.to_thread(examples)
    images = {str(number): image for number, (image, _) in enumerate(found)}
    image = images.get(request.path_params["number"])
    if image is None:
        message = f"there are {len(found)} examples; /examples lists them"
        raise RequestError(message, status=404, code="no_such_example")
    return Response(image, media_type="image/png", headers=HEADERS)


@lru_cache(maxsize=1)
def examples() -> tuple[tuple[bytes, str], ...]:
    """Return one test sample for each of `_KINDS`: the image as a PNG file, and the question.

    Return () if the packages of AwaRes-Mini are not installed.
    """
    try:
        from awares.mini.benchmark import generate_split
    except ImportError:
        return ()
    found: dict[str, tuple[bytes, str]] = {}
    for image, sample in generate_split("test", _DRAWN, _SEED):
        found.setdefault(sample.kind, (image, sample.question))
    return tuple(found[kind] for kind in _KINDS)


@lru_cache(maxsize=len(_ASSETS))
def _file(name: str) -> bytes:
    return files("awares_platform.serve").joinpath(name).read_bytes()
