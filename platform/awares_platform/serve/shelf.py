"""Decodes images in threads, and shares them between the requests in flight.

Requests with the same file under the same name share one image and its views.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from awares.gallery import Gallery
from awares.images import DecodeLimits, decode, header_pixels

T = TypeVar("T")
_DECODERS = 4
"""The largest number of images that are decoded at once. Decoding one needs much memory."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An encoded image, and the number of pixels in its header.

    `name` appears in error messages. `digest` is the SHA-256 hash of `data`.

    Example:
        ImageFile(data, "image 0", digest, pixels=12_544)
    """

    data: bytes
    name: str
    digest: bytes
    pixels: int

    @property
    def key(self) -> tuple[bytes, str]:
        """The digest and the name, by which the shelf finds the decoded image."""
        return self.digest, self.name


@dataclass(slots=True)
class _Entry:
    gallery: asyncio.Future[Gallery]
    users: int = 0


class Shelf:
    """The decoded images of the requests in flight.

    Example:
        shelf = Shelf(DecodeLimits())
        file = await shelf.open(data, "image")
        borrowed = shelf.borrow(file)
        try:
            gallery = await borrowed
        finally:
            shelf.give_back(file)
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._entries: dict[tuple[bytes, str], _Entry] = {}

    async def open(self, data: bytes, name: str) -> ImageFile:
        """Read the header of an image file. Raises DataError if it is no image, or too large."""
        return await self._run(lambda: self._open(data, name))

    def borrow(self, file: ImageFile) -> Awaitable[Gallery]:
        """Return an awaitable of the Gallery, which holds the decoded image and rendered views.

        For each call of `borrow`, call `give_back` once. The awaitable raises DataError if the file
        is corrupt.
        """
        if file.key not in self._entries:
            self._entries[file.key] = _Entry(asyncio.ensure_future(self._decode(file)))
        entry = self._entries[file.key]
        entry.users += 1
        # Without the shield, one cancelled request would cancel the decoding for all others.
        return asyncio.shield(entry.gallery)

    def give_back(self, file: ImageFile) -> None:
        """End one request's use of the image. Drop the image if no other request uses it."""
        entry = self._entries[file.key]
        entry.users -= 1
        if not entry.users:
            del self._entries[file.key]
            entry.gallery.cancel()

    def _open(self, data: bytes, name: str) -> ImageFile:
        pixels = header_pixels(data, self._limits, source=name)
        return ImageFile(data, name, hashlib.sha256(data).digest(), pixels)

    async def _decode(self, file: ImageFile) -> Gallery:
        return Gallery(await self._run(lambda: decode(file.data, self._limits, source=file.name)))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
