"""Writes a page with samples of a data set: thumbnails with boxes, questions and answers."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

from PIL import ImageDraw
from PIL.Image import Image, Resampling

from awares.crops import CropId, crop_box
from awares.errors import DataError
from awares.sample import Sample

THUMBNAIL = 320
"""The longest side of a thumbnail in pixels."""
_RED, _BLUE = (220, 0, 0), (0, 90, 220)
_CROPS = frozenset(CropId)
"""The crops that the page can draw. It only names the regions of other environments."""
_STYLE = (
    "section{display:flex;flex-wrap:wrap;gap:2em;margin-bottom:2em;align-items:start}"
    "table{border-collapse:collapse}caption{font-weight:600;text-align:left}"
    "th{font-weight:400;text-align:left;padding-right:1em}td{overflow-wrap:anywhere;max-width:30em}"
    "body{font:15px system-ui;margin:2em}main{display:grid;gap:1em;"
    f"grid-template-columns:repeat(auto-fill,minmax({THUMBNAIL}px,1fr))}}"
    "figure{margin:0;border:1px solid #ccc;padding:.6em}img{max-width:100%}"
    "figcaption b{display:block}small{color:#666;overflow-wrap:anywhere}"
)


def page(
    title: str,
    samples: Sequence[Sample],
    images: Callable[[str], Image],
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return an HTML page with the samples. The page needs no other file.

    `images` returns the image with a given hash. Each entry of `facts` becomes a table. Evidence
    boxes are red, and target crops are blue.
    """
    figures = "\n".join(_figure(sample, images) for sample in samples)
    tables = "\n".join(_table(name, value) for name, value in (facts or {}).items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><section>\n{tables}\n</section>"
        f"<main>\n{figures}\n</main></html>\n"
    )


def _table(name: str, value: object) -> str:
    """Return an HTML table of `value`, with one row for each key if `value` is a mapping."""
    rows = value if isinstance(value, Mapping) else {"": value}
    cells = "\n".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(_text(one))}</td></tr>"
        for key, one in rows.items()
    )
    return f"<table><caption>{escape(name)}</caption>\n{cells}\n</table>"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


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
    drawn = [(crop_box(CropId(one), image.size), _BLUE) for one in sample.crops if one in _CROPS]
    for box, colour in [*drawn, *((box, _RED) for box in sample.evidence)]:
        left, top, right, bottom = (side * scale for side in box)
        if left <= right - 1 and top <= bottom - 1:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" width={width} height={height} src="data:image/jpeg;base64,{data}">'
