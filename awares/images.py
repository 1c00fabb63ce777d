"""Decodes image files safely, and renders views of the decoded images."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image as pillow
from PIL import ImageOps
from PIL.Image import Image, Resampling
from PIL.ImageFile import ImageFile

from awares.crops import clamp
from awares.errors import DataError
from awares.png import without_texts
from awares.tokens import padded_size
from awares.view import View, view_size

# Pillow's decoders raise these errors for corrupt data.
_CORRUPT = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
)

_STRIP_PIXELS = 1 << 17

_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
"""The brands of HEIC files. A brand is the name of a file's format, in the bytes 8 to 11."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """The limits on an image file that may be decoded. They are checked before decoding.

    Example:
        DecodeLimits(max_pixels=50_000_000, formats=("PNG",))
    """

    max_pixels: int = 80_000_000
    """The largest number of pixels. A small file can decode to billions of pixels."""
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
    """The allowed formats, by the names that Pillow gives them."""


def decode(data: bytes, limits: DecodeLimits = DecodeLimits(), *, source: str = "image") -> Image:
    """Return the first frame of an image file as RGB, rotated by the file's EXIF orientation.

    Raises DataError for a format that is not allowed, too many pixels, or corrupt data. The message
    starts with `source`.
    """
    with _opened(data, limits, source) as file:
        file.load()
        return _to_rgb(ImageOps.exif_transpose(file))


def header_pixels(
    data: bytes, limits: DecodeLimits = DecodeLimits(), *, source: str = "image"
) -> int:
    """Return the number of pixels that the header of an image file states, without decoding.

    Raises DataError in the same cases as `decode`, except for faults that the header does not show.
    """
    with _opened(data, limits, source) as file:
        return file.width * file.height


@contextmanager
def _opened(data: bytes, limits: DecodeLimits, source: str) -> Iterator[ImageFile]:
    """Open an image file. Every error of Pillow in the `with` block becomes a DataError."""
    if (kind := _foreign(data)) is not None:
        raise DataError(f"{source}: {kind}; convert it to PNG or JPEG first")
    try:
        with pillow.open(io.BytesIO(without_texts(data)), formats=limits.formats) as file:
            _check_pixels(file.size, limits.max_pixels, source)
            yield file
    except DataError:
        raise
    except pillow.DecompressionBombError as error:
        raise DataError(
            f"{source}: too many pixels; shrink the image below {limits.max_pixels} pixels"
        ) from error
    except pillow.UnidentifiedImageError as error:
        raise DataError(
            f"{source}: not a readable image; allowed formats are {', '.join(limits.formats)}"
        ) from error
    except _CORRUPT as error:
        raise DataError(
            f"{source}: truncated or corrupt image ({error}); replace or remove it"
        ) from error


def _foreign(data: bytes) -> str | None:
    """Return why a PDF or HEIC file cannot be read, or None for any other data."""
    if data[:1024].lstrip()[:5] == b"%PDF-":
        return "a PDF document is no image, and its pages are not rendered here"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        return "the format HEIC is not read here"
    return None


def _check_pixels(size: tuple[int, int], most: int, source: str) -> None:
    pixels = size[0] * size[1]
    if pixels > most:
        raise DataError(
            f"{source}: {size[0]} x {size[1]} is {pixels} pixels, more than {most}; "
            "shrink the image or raise the limit"
        )
    if pixels < 1:
        raise DataError(f"{source}: the image is empty; replace or remove it")


def _to_rgb(image: Image) -> Image:
    if image.mode in ("F", "I"):
        return _grey(np.asarray(image, dtype=np.float32)).convert("RGB")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255, which turns most scans white.
        return image.convert("I").point(lambda tone: tone * (1 / 256)).convert("L").convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image) -> Image:
    """Return `image` as RGB on a white background.

    Pillow holds Python's global lock while it composes two images. The function composes the image
    in strips, so that other threads can run between two strips.
    """
    whole = pillow.new("RGB", image.size, None)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        over = image.crop(box).convert("RGBA")
        ground = pillow.new("RGBA", over.size, "white")
        whole.paste(pillow.alpha_composite(ground, over).convert("RGB"), box)
    return whole


def _grey(tones: np.ndarray) -> Image:
    """Return 32-bit tones (height, width) as 8-bit grey.

    If the lowest tone is negative, all tones are first raised until it is 0. Black is then 0, and
    white is the smallest of 1, 255, 65,535 and 2**31 - 1 that no tone exceeds.
    """
    finite = np.where(np.isfinite(tones), tones, 0.0)
    finite = finite - min(0.0, float(finite.min()))
    top = float(finite.max())
    white = next((most for most in (1, 255, 65_535, 2**31 - 1) if top <= most), top)
    return pillow.fromarray(np.rint(finite * (255 / white)).astype(np.uint8))


def low_view(image: Image, ratio: float = 0.5) -> Image:
    """Return the whole image with each side scaled by `ratio` (LANCZOS; paper, section 4.3)."""
    return image.resize(view_size(View(None), image.size, ratio), Resampling.LANCZOS)


def render(image: Image, view: View, ratio: float = 0.5) -> Image:
    """Return the pixels of `view`, cut from the original `image`.

    `ratio` is the low-resolution view's side, divided by the image's side. A long and narrow view
    is padded with black pixels, because the processor refuses aspect ratios above 200.
    """
    if view.box is None:
        return _pad(low_view(image, ratio * view.scale))
    shown = image if view.box == (0, 0, *image.size) else image.crop(clamp(view.box, image.size))
    if view.scale != 1.0:
        shown = shown.resize(view_size(view, image.size), Resampling.LANCZOS)
    return _pad(shown)


def _pad(image: Image) -> Image:
    size = padded_size(image.size)
    if size == image.size:
        return image
    canvas = pillow.new("RGB", size)
    canvas.paste(image)
    return canvas
