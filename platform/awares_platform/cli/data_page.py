"""Writes a page with samples of a data set: thumbnails with boxes, questions and answers."""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape

from PIL import ImageDraw
from PIL.Image import Image, Resampling

from awares.errors import DataError
from awares.sample import Sample

THUMBNAIL = 320
"""The longest side of a thumbnail in pixels."""
_STYLE = (
    "body{font:15px system-ui;margin:2em}main{display:grid;gap:1em;"
    f"grid-template-columns:repeat(auto-fill,minmax({THUMBNAIL}px,1fr))}}"
    "figure{margin:0;border:1px solid #ccc;padding:.6em}img{max-width:100%}"
    "figcaption b{display:block}small{color:#666;overflow-wrap:anywhere}"
)


def page(title: str, samples: Sequence[Sample], images: Callable[[str], Image]) -> str:
    """Return an HTML page that needs no other file. It shows the boxes of the evidence in red.

    `images` maps the hash of an image to the image. A missing image leaves a note in its place.
    """
    figures = "\n".join(_figure(sample, images) for sample in samples)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><main>\n{figures}\n</main></html>\n"
    )


def _figure(sample: Sample, images: Callable[[str], Image]) -> str:
    notes = (sample.sample_id, sample.kind, sample.scorer, sample.label, " ".join(sample.crops))
    return (
        f"<figure>{_thumbnail(sample, images)}<figcaption dir=auto><b>{escape(sample.question)}</b>"
        f"{escape(' | '.join(sample.answers))}<br>"
        f"<small>{escape(', '.join(str(note) for note in notes if note))}</small>"
        "</figcaption></figure>"
    )


def _thumbnail(sample: Sample, images: Callable[[str], Image]) -> str:
    try:
        image = images(sample.image)
    except DataError as error:
        return f"<p>{escape(str(error))}</p>"
    scale = min(1.0, THUMBNAIL / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Resampling.LANCZOS)
    draw = ImageDraw.Draw(small)
    for left, top, right, bottom in sample.evidence:
        corners = (left * scale, top * scale, right * scale - 1, bottom * scale - 1)
        if corners[0] <= corners[2] and corners[1] <= corners[3]:
            draw.rectangle(corners, outline=(220, 0, 0), width=2)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" width={width} height={height} src="data:image/jpeg;base64,{data}">'
