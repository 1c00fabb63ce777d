"""Draws document pages with questions: receipts, bar charts and forms, in many file formats.

`write` makes a directory of images with a JSONL file of questions. Some files and rows are faulty.
"""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

Box = tuple[int, int, int, int]
MONTHS = ("January", "February", "March", "April", "May", "June")
_EXIF_ORIENTATION, _ROTATED_LEFT = 0x0112, 6


@dataclass(frozen=True, slots=True)
class Page:
    """One page with a question about it. `box` is where the answer stands, in pixels.

    Example:
        Page(Image.new("RGB", (400, 600)), "What is the total of receipt 7?", "4.20", box)
    """

    image: Image.Image
    question: str
    answer: str
    box: Box

    @property
    def thousandths(self) -> list[int]:
        """The box in thousandths of the image's sides."""
        return [
            round(1000 * edge / self.image.size[axis % 2]) for axis, edge in enumerate(self.box)
        ]


def pages(count: int, seed: int) -> list[Page]:
    """Draw `count` pages: receipts, bar charts and forms in turn. No two have the same question."""
    chance = random.Random(seed)
    kinds = (_receipt, _chart, _form)
    return [kinds[number % 3](number, chance) for number in range(count)]


def write(directory: Path, drawn: list[Page]) -> Path:
    """Write the images and train.jsonl, and return the path of train.jsonl.

    The last rows are unusable. `UNUSABLE` lists them with the reasons that the import gives.
    """
    rows = []
    for number, page in enumerate(drawn):
        ending, encode = _FORMATS[number % len(_FORMATS)]
        name = f"{number:04}.{ending}"
        (directory / name).write_bytes(encode(page.image))
        rows.append({"image": name, "question": page.question, "answer": page.answer})
    sound = (directory / rows[0]["image"]).read_bytes()
    (directory / "cut.png").write_bytes(sound[: len(sound) // 2])
    (directory / "empty.png").write_bytes(b"")
    (directory / "note.png").write_text("The scanner was out of paper.")
    for name in ("cut.png", "empty.png", "note.png", "missing.png"):
        rows.append({"image": name, "question": f"What does {name} show?", "answer": "nothing"})
    rows.append({**rows[1], "answer": []})
    rows.append(rows[2])
    path = directory / "train.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _blank(chance: random.Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    size = chance.randrange(280, 640), chance.randrange(360, 720)
    image = Image.new("RGB", size, (255, 255, chance.randrange(235, 256)))
    return image, ImageDraw.Draw(image)


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int) -> Box:
    """Draw `text`, and return its box in pixels."""
    font = ImageFont.load_default(size)
    draw.text(at, text, "black", font)
    left, top, right, bottom = draw.textbbox(at, text, font)
    return int(left), int(top), int(right), int(bottom)


def _receipt(number: int, chance: random.Random) -> Page:
    image, draw = _blank(chance)
    _text(draw, (20, 15), f"RECEIPT {number}", 22)
    prices = [chance.randrange(100, 2000) for _ in range(chance.randrange(3, 8))]
    for line, price in enumerate(prices):
        _text(draw, (20, 60 + 26 * line), f"item {line + 1}   {price / 100:.2f}", 14)
    total = f"{sum(prices) / 100:.2f}"
    box = _text(draw, (image.width // 2, 80 + 26 * len(prices)), total, 16)
    return Page(image, f"What is the total of receipt {number}?", total, box)


def _chart(number: int, chance: random.Random) -> Page:
    image, draw = _blank(chance)
    _text(draw, (20, 15), f"Sales, chart {number}", 18)
    heights = [chance.randrange(20, 200) for _ in MONTHS]
    best = max(range(len(MONTHS)), key=heights.__getitem__)
    step, floor = (image.width - 20) // len(MONTHS), image.height - 60
    boxes = []
    for month, height in enumerate(heights):
        left = 10 + month * step
        draw.rectangle((left, floor - height, left + step // 2, floor), "steelblue")
        boxes.append(_text(draw, (left, floor + 8), MONTHS[month][:3], 12))
    question = f"Which month has the highest bar in chart {number}?"
    return Page(image, question, MONTHS[best][:3], boxes[best])


def _form(number: int, chance: random.Random) -> Page:
    image, draw = _blank(chance)
    _text(draw, (20, 15), f"FORM {number}", 22)
    date = f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
    _text(draw, (20, image.height - 80), "Date of signature", 12)
    box = _text(draw, (30, image.height - 60), date, 14)
    return Page(image, f"When was form {number} signed?", date, box)


def _saved(form: str, **options: object) -> Callable[[Image.Image], bytes]:
    def encode(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    return encode


def _converted(mode: str, form: str) -> Callable[[Image.Image], bytes]:
    return lambda image: _saved(form)(image.convert(mode))


def _sixteen_bits(image: Image.Image) -> bytes:
    grey = image.convert("L").convert("I").point(lambda value: value * 257)
    return _saved("TIFF")(grey.convert("I;16"))


def _turned(image: Image.Image) -> bytes:
    """Encode the image as a phone does: rotated by 90 degrees, with an EXIF tag that says so."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _ROTATED_LEFT
    turned = image.transpose(Image.Transpose.ROTATE_90)
    assert ImageOps.exif_transpose(turned) is not None
    return _saved("JPEG", quality=90, exif=exif)(turned)


_FORMATS: tuple[tuple[str, Callable[[Image.Image], bytes]], ...] = (
    ("png", _saved("PNG")),
    ("jpg", _saved("JPEG", quality=90)),
    ("webp", _saved("WEBP", quality=90)),
    ("tif", _sixteen_bits),
    ("gif", _converted("P", "GIF")),
    ("bmp", _saved("BMP")),
    ("png", _converted("RGBA", "PNG")),
    ("jpg", _converted("CMYK", "JPEG")),
    ("jpg", _turned),
    ("avif", _saved("AVIF", quality=80)),
)
