"""Finds the image file of a record, and converts it to the PNG or JPEG file that is stored."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags
from PIL import Image as pillow
from PIL.Image import Image, Resampling

from awares.data_url import decode_data_url, is_data_url
from awares.errors import DataError
from awares.images import decode
from awares.png import without_texts
from awares.tokens import Size
from awares_platform.data.intake.place import MOST_BYTES, Root
from awares_platform.data.intake.refusal import Refused
from awares_platform.runtime.remote_files import RemoteFiles

MOST_RATIO = 200
"""The largest ratio of the long to the short side. Model processors refuse longer strips."""
_FETCH_S = 60.0
_KEPT_FORMATS = ("PNG", "JPEG")
_KEPT_MODES = ("RGB", "L")
_JPEG_QUALITY = 95
_GREY_SIZE = (17, 16)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file as it is stored.

    `size` is its (width, height), and `original` is the (width, height) before the import shrank
    it. `image_hash` is the result of `perceptual_hash`.

    Example:
        Picture(data, size=(2000, 1545), original=(2200, 1700), image_hash=0x1f3a)
    """

    data: bytes
    size: Size
    original: Size
    image_hash: int


class PictureFinder:
    """Reads the image file to which the value of an image column refers.

    `root` reads paths and s3:// addresses. `hosts` are the hosts from which images may be fetched.

    Example:
        PictureFinder(LocalRoot(Path("pages")), ()).read("receipts/17.png")
    """

    def __init__(self, root: Root, hosts: tuple[str, ...]) -> None:
        self._root = root
        self._remote = RemoteFiles(hosts, max_bytes=MOST_BYTES, timeout_s=_FETCH_S)

    def read(self, value: Any) -> bytes:
        """Return the bytes of the image file. Raises Refused if there is no such file."""
        value = _single(value)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path") or value.get("url")
        if isinstance(value, bytes | bytearray) and value:
            return bytes(value)
        if not isinstance(value, str) or not value.strip():
            raise Refused("no image", f"the image column holds {_short(value)}")
        return self._of_text(value.strip())

    def _of_text(self, text: str) -> bytes:
        try:
            if is_data_url(text):
                return decode_data_url(text)
            if text.startswith(("http://", "https://")):
                return self._fetched(text)
            return self._root.read(text)
        except DataError as error:
            raise Refused("image not found", str(error)) from error

    def _fetched(self, url: str) -> bytes:
        if not self._remote.hosts:
            raise DataError(f"{_short(url)} is not fetched; name its host in imports.hosts")
        return asyncio.run(self._remote.fetch(url))


def _single(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise Refused("several images", f"the row has {len(value)} images, and a question has one")
    return value[0] if value else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def stored_form(data: bytes, max_side: int) -> Picture:
    """Return an image as PNG or JPEG, upright, and with no side over `max_side` pixels.

    JPEG files stay JPEG. PNG files lose colour profile and texts.

    Raises Refused if the image cannot be decoded or is too narrow.
    """
    data = without_texts(data)
    try:
        image = decode(data)
    except DataError as error:
        raise Refused("image cannot be decoded", str(error)) from error
    original = image.size
    if max(original) > MOST_RATIO * min(original):
        raise Refused(
            "image too narrow",
            f"{original[0]} x {original[1]} is more than {MOST_RATIO} times as long as wide",
        )
    if max(original) > max_side:
        scale = max_side / max(original)
        shrunk = (max(1, round(side * scale)) for side in original)
        image = image.resize((next(shrunk), next(shrunk)), Resampling.LANCZOS)
    kind = _format(data)
    if image.size != original or kind is None or not _is_plain(data):
        data = _encoded(image, kind or "PNG")
    return Picture(data, image.size, original, perceptual_hash(image))


def _format(data: bytes) -> str | None:
    """Return the format of a file if data sets store this format, or None."""
    with pillow.open(io.BytesIO(data)) as file:
        return file.format if file.format in _KEPT_FORMATS else None


def _is_plain(data: bytes) -> bool:
    """Return whether a PNG or JPEG file is upright and plain RGB or grey, without transparency."""
    with pillow.open(io.BytesIO(data)) as file:
        rotated = pillow.Image.getexif(file).get(ExifTags.Base.Orientation, 1) != 1
        return file.mode in _KEPT_MODES and "transparency" not in file.info and not rotated


def _encoded(image: Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, kind, quality=_JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, kind)
    return buffer.getvalue()


def perceptual_hash(image: Image) -> int:
    """Return a hash of 256 bits that hardly changes if an image is scaled or compressed again.

    Each bit compares two neighbours among 17 x 16 grey pixels (Krawetz, 2013).
    """
    width, height = _GREY_SIZE
    tones = image.convert("L").resize(_GREY_SIZE, Resampling.BOX).tobytes()
    bits = (
        tones[row * width + column] < tones[row * width + column + 1]
        for row in range(height)
        for column in range(width - 1)
    )
    return sum(1 << place for place, bit in enumerate(bits) if bit)
