"""Turns episodes into rows of a table, with a frame around each crop in the image."""

from PIL import ImageDraw
from PIL.Image import Image, Resampling

from awares.crops import Box
from awares.episode import Episode
from awares.sample import Sample
from awares_platform.runtime.tracking.tracker import SampleRow

SIDE = 512
"""Maximum width and height in pixels of an image in a table. Smaller images are enlarged."""
FRAME = (251, 191, 36)


def sample_row(
    sample: Sample,
    episode: Episode,
    image: Image,
    *,
    correct: bool,
    reward: float | None,
    parts: dict[str, float] | None = None,
) -> SampleRow:
    """Return an episode as a row. `image` is the original image of the sample."""
    views = [view.box for turn in episode.turns[1:] for view in turn.views]
    return SampleRow(
        image=drawn(image, [box for box in views if box is not None]),
        question=sample.question,
        truth=sample.answer,
        answer=episode.answer,
        correct=correct,
        crops=" ".join(episode.crops),
        reward=reward,
        parts=parts or {},
    )


def drawn(image: Image, boxes: list[Box]) -> Image:
    """Return the image resized to a longer side of SIDE pixels, with frames around `boxes`.

    The coordinates of `boxes` are pixels of the original image.
    """
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = image.convert("RGB").resize(size, Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas)
    for left, top, right, bottom in boxes:
        corners = [left * scale, top * scale, right * scale - 1, bottom * scale - 1]
        pen.rectangle(corners, outline=FRAME, width=SIDE // 100)
    return canvas
