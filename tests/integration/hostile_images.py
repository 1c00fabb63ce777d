"""Lists odd and hostile image files, and the HTTP statuses that a request with each may get."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, PngImagePlugin

OK, BAD, ANY = (200,), (400,), (200, 400)


def picture(
    size: tuple[int, int] = (56, 56), mode: str = "RGB", kind: str = "PNG", **how: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **how)
    return buffer.getvalue()


def _claimed(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims another size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + picture()[33:]


def _text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "x" * 20_000_000, zip=True)
    return picture(pnginfo=info)


def pictures() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """Yield the name, the bytes and the allowed statuses of each file."""
    whole, jpeg = picture((40, 40)), picture((64, 64), kind="JPEG")
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        yield f"PNG {mode}", picture(mode=mode), OK
    for mode, kind in (
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("P", "GIF"),
        ("CMYK", "TIFF"),
        ("F", "TIFF"),
    ):
        yield f"{kind} {mode}", picture(mode=mode, kind=kind), OK
    for kind in ("WEBP", "BMP", "TIFF", "AVIF", "GIF"):
        yield kind, picture(kind=kind), OK
    for size in ((1, 1), (1, 30_000), (30_000, 1), (2, 2), (27, 29), (3000, 2), (4000, 4000)):
        yield f"{size}", picture(size), OK
    for part in range(1, 10):
        # The first eight tenths of this small PNG hold all pixels. Only checksums and the end mark
        # are in the rest, so the endpoint may accept the file without them.
        allowed = BAD if part < 8 else ANY
        yield f"PNG of {part} tenths", whole[: len(whole) * part // 10], allowed
        yield f"JPEG of {part} tenths", jpeg[: len(jpeg) * part // 10], BAD
    for size in (
        (2**31 - 1, 2**31 - 1),
        (2**32 - 1, 1),
        (0, 0),
        (0, 5),
        (60_000, 60_000),
        (9000, 9000),
    ):
        yield f"PNG that claims {size}", _claimed(*size), BAD
    yield "PNG that claims 8000 x 7000", _claimed(8000, 7000), BAD
    yield "pixels that are a bomb", picture((9000, 9000), mode="1"), BAD
    yield "text that is a bomb", _text_bomb(), ANY
    yield "PNG and a ZIP", whole + b"PK\x03\x04" + b"\0" * 100, OK
    yield "PNG and HTML", whole + b"<html><script>alert(1)</script>", OK
    yield "HTML before a PNG", b"<html>" + whole, BAD
    yield "GIF and JavaScript", b"GIF89a/*" + b"\0" * 50 + b"*/=1;", BAD
    for index in range(8, len(whole), 9):
        yield f"PNG with byte {index} flipped", _flipped(whole, index), ANY
    for index in range(2, len(jpeg), 60):
        yield f"JPEG with byte {index} flipped", _flipped(jpeg, index), ANY
    frames = [Image.new("RGB", (56, 56), (color, 0, 0)) for color in range(40)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        yield f"many frames of {kind}", picture(kind=kind, save_all=True, append_images=frames), OK
    yield (
        "SVG",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        BAD,
    )
    yield "PDF", b"%PDF-1.7\n1 0 obj", BAD
    yield "HEIC", b"\0\0\0\x18ftypheic" + b"\0" * 50, BAD
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file", BAD
    yield "ICO", b"\0\0\1\0\1\0" + b"\x10" * 40, BAD
    yield "TIFF that points to itself", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", BAD
    for junk in (
        b"",
        b"\0" * 1000,
        b"\xff" * 1000,
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF",
        b"BM",
    ):
        yield f"junk {junk[:8]!r}", junk, BAD


def _flipped(data: bytes, index: int) -> bytes:
    return data[:index] + bytes((data[index] ^ 0x40,)) + data[index + 1 :]
