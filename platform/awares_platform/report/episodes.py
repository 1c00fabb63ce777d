"""A dozen episodes, drawn: what the policy saw first, what it asked to see, and what it said."""

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from html import escape
from itertools import zip_longest

from PIL.Image import Image, Resampling

from awares.crops import Box, CropId
from awares.images import low_view
from awares_platform.report.records import EpisodeRecord
from awares_platform.report.shift import NAMES

CALLS, DIRECT, WRONG = 7, 3, 2
"""A dozen."""

LONGEST_SIDE = 640
"""Pixels: larger images are reduced for the page."""

LOSSLESS_SIDE = 256
"""Pixels: small images are kept exact, since what is legible in them is the point."""

Fetch = Callable[[str], Image]
"""Image hash to pixels; raises DataError or StoreError."""


def choose(episodes: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """A varied dozen, the same for the same episodes: calls, direct answers and failures, filled up from the rest where one is short."""
    calls = [episode for episode in episodes if episode.crops and episode.correct]
    direct = [episode for episode in episodes if not episode.crops and episode.correct]
    wrong = [episode for episode in episodes if not episode.correct]
    picked = _varied(calls, CALLS) + _varied(direct, DIRECT) + _varied(wrong, WRONG)
    rest = [episode for episode in (*calls, *direct, *wrong) if episode not in picked]
    return (picked + rest)[: CALLS + DIRECT + WRONG]


def _varied(episodes: Sequence[EpisodeRecord], count: int) -> list[EpisodeRecord]:
    """Take turns over the requests (direct answers: over the kinds of question), the most frequent first."""
    groups: dict[object, list[EpisodeRecord]] = {}
    for episode in episodes:
        groups.setdefault(episode.crops or episode.kind, []).append(episode)
    queues = sorted(groups.values(), key=len, reverse=True)
    turns = [episode for turn in zip_longest(*queues) for episode in turn if episode is not None]
    return turns[:count]


def episode_cards(episodes: Sequence[EpisodeRecord], fetch: Fetch, low_ratio: float) -> str:
    """The chosen episodes as cards."""
    return "\n".join(card(episode, fetch(episode.image), low_ratio) for episode in choose(episodes))


def card(episode: EpisodeRecord, image: Image, low_ratio: float) -> str:
    """One episode: low view, the image with the requested boxes, question, answer, truth, and the bill."""
    verdict = "right" if episode.correct else "wrong"
    said = (
        escape(episode.answer)
        if episode.answer is not None
        else f"<em>no answer ({escape(episode.stop)})</em>"
    )
    asked = (
        "asked for " + " and ".join(NAMES[CropId(crop)] for crop in episode.crops)
        if episode.crops
        else "answered directly"
    )
    truth = (
        ""
        if episode.correct
        else f'<span class="truth">truth: <b>{escape(episode.truth)}</b></span>'
    )
    before = _picture(low_view(image, low_ratio), image.size)
    after = _picture(image, image.size, episode.boxes, episode.evidence, _mask_id(episode))
    return (
        f'<article class="episode {verdict}"><div class="views">'
        f"<figure>{before}<figcaption>sees first</figcaption></figure>"
        f"<figure>{after}<figcaption>{escape(asked)}</figcaption></figure></div>"
        f'<p class="question">{escape(episode.question)}</p>'
        f'<p class="answer"><span class="verdict" title="{verdict}">{"✓" if episode.correct else "✗"}</span> <b>{said}</b>{truth}</p>'
        f'<p class="bill">{_bill(episode)}</p></article>'
    )


def _mask_id(episode: EpisodeRecord) -> str:
    return f"m{hashlib.sha256(episode.sample_id.encode()).hexdigest()[:10]}"


def _bill(episode: EpisodeRecord) -> str:
    label = f" · label {escape(episode.label)}" if episode.label else ""
    return f"{episode.visual_tokens} visual tokens · RTR {episode.rtr_token:.2f}{label}"


def _picture(
    image: Image,
    size: tuple[int, int],
    boxes: Sequence[Box] = (),
    evidence: Sequence[Box] = (),
    mask: str = "",
) -> str:
    """`image` stretched over a canvas of `size`. In that canvas's pixels, `boxes` are framed and the rest is dimmed, through `mask` (an
    id); `evidence` has a dashed frame."""
    width, height = size
    drawing = f'<image href="{_data_url(image)}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
    if boxes:
        holes = "".join(_rect(box, "black") for box in boxes)
        drawing += f'<mask id="{mask}"><rect width="{width}" height="{height}" fill="white"/>{holes}</mask>'
        drawing += f'<rect class="dim" width="{width}" height="{height}" mask="url(#{mask})"/>'
        drawing += "".join(_frame(box, max(size) / 80, "box") for box in boxes)
    drawing += "".join(_frame(box, max(size) / 120, "evidence") for box in evidence)
    return f'<svg class="picture" viewBox="0 0 {width} {height}" role="img">{drawing}</svg>'


def _rect(box: Box, fill: str) -> str:
    left, top, right, bottom = box
    return (
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="{fill}"/>'
    )


def _frame(box: Box, stroke: float, kind: str) -> str:
    """A line inside of the box, so that boxes at the image's edge show whole."""
    left, top, right, bottom = box
    dash = f' stroke-dasharray="{3 * stroke:.1f} {2 * stroke:.1f}"' if kind == "evidence" else ""
    return (
        f'<rect class="{kind}"{dash} x="{left + stroke / 2:.1f}" y="{top + stroke / 2:.1f}" width="{right - left - stroke:.1f}" '
        f'height="{bottom - top - stroke:.1f}" stroke-width="{stroke:.1f}"/>'
    )


def _data_url(image: Image) -> str:
    shown = image.copy()
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", lossless=max(shown.size) <= LOSSLESS_SIDE, quality=90, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
