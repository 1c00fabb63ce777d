"""Generates pages of 1,700 x 2,200 pixels with questions.

A page shows one page of AwaRes-Mini, enlarged to the full width of a white sheet.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from awares.crops import Box
from awares.mini.digits import SplitName
from awares.mini.pages import PAGE_SIDE, generate_pages
from awares.sample import Sample

WIDTH, HEIGHT = 1700, 2200
TOP = (HEIGHT - WIDTH) // 2
"""The height of the white strip above the enlarged mini page, in pixels."""


def pages(split: SplitName, count: int, seed: int) -> Iterator[tuple[bytes, Sample]]:
    """Yield `count` pages, each as the bytes of a JPEG file and a sample with one question.

    The evidence boxes fit the enlarged page. The sample gets its label later, from curation.
    """
    for data, sample in generate_pages(split, count, seed):
        page = Image.new("RGB", (WIDTH, HEIGHT), "white")
        scene = Image.open(io.BytesIO(data)).convert("RGB")
        page.paste(scene.resize((WIDTH, WIDTH), Image.Resampling.LANCZOS), (0, TOP))
        buffer = io.BytesIO()
        page.save(buffer, "JPEG", quality=90)
        data = buffer.getvalue()
        evidence = tuple(_enlarged(box) for box in sample.evidence)
        image = hashlib.sha256(data).hexdigest()
        yield data, replace(sample, image=image, evidence=evidence, label=None, crops=())


def _enlarged(box: Box) -> Box:
    left, top, right, bottom = (edge * WIDTH // PAGE_SIDE for edge in box)
    return left, top + TOP, right, bottom + TOP
