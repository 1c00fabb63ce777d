"""Draws a dozen episodes: the low-resolution view, the requested crops, and the answer."""

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from html import escape
from itertools import zip_longest

from PIL.Image import Image, Resampling

from awares.crops import Box
from awares.images import render
from awares_platform.config.method import MethodConfig
from awares_platform.report.records import EpisodeRecord
from awares_platform.report.shift import region_name

CALLS, DIRECT, WRONG = 7, 3, 2
"""The numbers of episodes that the report draws from three groups.

The groups are right answers after a request, right answers without a request, and wrong answers."""

LONGEST_SIDE = 640
"""Maximum width and height in pixels of an image in the page. Larger images are reduced."""

LOSSLESS_SIDE = 256
"""Maximum width and height of an image that is stored without loss, to keep small text legible."""

Fetch = Callable[[str], Image]
"""Returns the image with the given content hash. Raises DataError or StoreError."""


def choose(episodes: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """Choose up to twelve varied episodes from three groups, in a reproducible way.

    The groups are right answers after a request, right answers without one, and wrong answers.
    If a group has too few episodes, the other groups supply more.
    """
    calls = [episode for episode in episodes if episode.crops and episode.correct]
    direct = [episode for episode in episodes if not episode.crops and episode.correct]
    wrong = [episode for episode in episodes if not episode.correct]
    picked = _varied(calls, CALLS) + _varied(direct, DIRECT) + _varied(wrong, WRONG)
    rest = [episode for episode in (*calls, *direct, *wrong) if episode not in picked]
    return (picked + rest)[: CALLS + DIRECT + WRONG]


def _varied(episodes: Sequence[EpisodeRecord], count: int) -> list[EpisodeRecord]:
    """Choose up to `count` varied episodes.

    The function takes one episode from each group in turn. A group holds the episodes with the same
    requested crops. Episodes without a request are grouped by the kind of question.
    """
    groups: dict[object, list[EpisodeRecord]] = {}
    for episode in episodes:
        groups.setdefault(episode.crops or episode.kind, []).append(episode)
    queues = sorted(groups.values(), key=len, reverse=True)
    turns = [episode for turn in zip_longest(*queues) for episode in turn if episode is not None]
    return turns[:count]


def episode_cards(episodes: Sequence[EpisodeRecord], fetch: Fetch, method: MethodConfig) -> str:
    """Choose up to twelve episodes and draw a card for each.

    `fetch` returns the image of an episode. `method` determines the low-resolution view on a card.
    """
    return "\n".join(card(episode, fetch(episode.image), method) for episode in choose(episodes))


def card(episode: EpisodeRecord, image: Image, method: MethodConfig) -> str:
    """Draw the card of one episode: its low-resolution view, and `image` with the requested boxes.

    The text below shows question, answer and cost, and corrects a wrong answer.
    """
    verdict, mark = ("right", "✓") if episode.correct else ("wrong", "✗")
    names = [region_name(region) for region in episode.crops]
    asked = f"asked for {' and '.join(names)}" if names else _direct(episode)
    first = render(image, method.rule.low(image.size), method.low_ratio)
    before = _picture(first, image.size)
    after = _picture(image, image.size, episode.boxes, episode.evidence, _mask_id(episode))
    return (
        f'<article class="episode {verdict}"><div class="views">'
        f"<figure>{before}<figcaption>sees first</figcaption></figure>"
        f"<figure>{after}<figcaption>{escape(asked)}</figcaption></figure></div>"
        f'<p class="question">{escape(episode.question)}</p>'
        f'<p class="answer"><span class="verdict" title="{verdict}">{mark}</span> '
        f"<b>{_answer(episode)}</b>{_truth(episode)}</p>"
        f'<p class="bill">{_cost(episode)}</p></article>'
    )


def _direct(episode: EpisodeRecord) -> str:
    return "gave no valid answer" if episode.answer is None else "answered directly"


def _answer(episode: EpisodeRecord) -> str:
    if episode.answer is None:
        return f"<em>no answer ({escape(episode.stop)})</em>"
    return escape(episode.answer)


def _truth(episode: EpisodeRecord) -> str:
    if episode.correct:
        return ""
    return f'<span class="truth">truth: <b>{escape(episode.truth)}</b></span>'


def _mask_id(episode: EpisodeRecord) -> str:
    """Return a unique HTML id for the mask that dims the image outside the requested boxes."""
    return f"m{hashlib.sha256(episode.sample_id.encode()).hexdigest()[:10]}"


def _cost(episode: EpisodeRecord) -> str:
    label = f" · label {escape(episode.label)}" if episode.label else ""
    return f"{episode.visual_tokens} visual tokens · RTR {episode.rtr_token:.2f}{label}"


def _picture(
    image: Image,
    size: tuple[int, int],
    boxes: Sequence[Box] = (),
    evidence: Sequence[Box] = (),
    mask: str = "",
) -> str:
    """Stretch `image` over a canvas of `size`, and draw frames around boxes.

    All boxes are in pixels of the canvas. `boxes` get solid frames, and the mask with the id `mask`
    dims the rest. `evidence` gets dashed frames.
    """
    width, height = size
    whole = f'width="{width}" height="{height}"'
    drawing = f'<image href="{data_url(image, LONGEST_SIDE)}" {whole} preserveAspectRatio="none"/>'
    if boxes:
        holes = "".join(_rect(box, "black") for box in boxes)
        drawing += f'<mask id="{mask}"><rect {whole} fill="white"/>{holes}</mask>'
        drawing += f'<rect class="dim" {whole} mask="url(#{mask})"/>'
        drawing += "".join(_frame(box, max(size) / 80, "box") for box in boxes)
    drawing += "".join(_frame(box, max(size) / 120, "evidence") for box in evidence)
    return f'<svg class="picture" viewBox="0 0 {width} {height}" role="img">{drawing}</svg>'


def _rect(box: Box, fill: str) -> str:
    left, top, right, bottom = box
    size = f'width="{right - left}" height="{bottom - top}"'
    return f'<rect x="{left}" y="{top}" {size} fill="{fill}"/>'


def _frame(box: Box, stroke: float, kind: str) -> str:
    """Draw a frame inside the box, so that the image's edge does not cut the frame off."""
    left, top, right, bottom = box
    dash = f' stroke-dasharray="{3 * stroke:.1f} {2 * stroke:.1f}"' if kind == "evidence" else ""
    return (
        f'<rect class="{kind}"{dash} x="{left + stroke / 2:.1f}" y="{top + stroke / 2:.1f}" '
        f'width="{right - left - stroke:.1f}" height="{bottom - top - stroke:.1f}" '
        f'stroke-width="{stroke:.1f}"/>'
    )


def data_url(image: Image, longest: int) -> str:
    """Return `image` as a data URL. Its sides are reduced to at most `longest` pixels."""
    shown = image.copy()
    shown.thumbnail((longest, longest), Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", lossless=max(shown.size) <= LOSSLESS_SIDE, quality=90, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
