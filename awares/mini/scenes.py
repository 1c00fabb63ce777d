"""The scenes of AwaRes-Mini: coloured shapes in the quadrants and the centre, each with a digit.

A scene is 112 px square and costs 16 visual tokens. Its low-resolution view is 56 px square and
costs 4 tokens. A quadrant costs 4 tokens, too. Colours and shapes are legible in the full and in
the low-resolution view. In the low-resolution view, large digits are legible, small digits are
illegible, and middle digits are sometimes legible. Whether a crop is needed therefore depends on
the image. Digits of the training split are randomly warped. Digits of the test split are not.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from awares.crops import Box
from awares.mini.digits import SplitName, glyph, scans, warped_glyph

SIDE = 112
Place = Literal["northwest", "northeast", "southwest", "southeast", "center"]
PLACES: tuple[Place, ...] = ("northwest", "northeast", "southwest", "southeast", "center")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (230, 70, 60),
    "green": (70, 185, 90),
    "blue": (80, 130, 245),
    "yellow": (240, 215, 60),
    "purple": (175, 90, 215),
    "orange": (245, 150, 50),
}
SHAPES = ("circle", "square", "diamond", "cross")
SMALL = (9, 11)
MIDDLE = (12, 16)
LARGE = (19, 25)
"""SMALL, MIDDLE and LARGE are ranges of a digit's height in pixels, including both ends."""

ILLEGIBLE = 10
"""The shipped policy misreads most digits of at most this height in the low-resolution view.

The height is in pixels at full resolution. The policy's model card shows the accuracy by height.
"""

SHARES = (0.25, 0.15, 0.6)
"""Shares of small, middle and large digits."""

CENTERED = 0.4
"""Share of scenes with an item in the centre."""

SLOT = 38
"""Side in pixels of the corner square that holds a quadrant's item. The centre stays free."""

INK = np.array((20, 20, 20), np.float32)

NOISE = 10
"""Largest change that noise makes to a pixel value of 0 to 255."""


@dataclass(frozen=True, slots=True)
class Item:
    """A shape with a digit on it.

    Example:
        Item("northwest", "red", "circle", 7, 412, 11, (3, 2, 37, 36))
    """

    place: Place
    color: str
    shape: str
    digit: int
    scan: int
    """The index of the digit's handwritten scan in the split."""
    height: int
    """The height of the digit in pixels."""
    box: Box
    """The bounding box of the shape."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The description of a scene.

    Example:
        Scene("train", 17, (item,))
    """

    split: SplitName
    """The split from which the handwritten scans come."""
    seed: int
    """Determines the background, the warping of the digits and the noise."""
    items: tuple[Item, ...]
    side: int = SIDE
    """The side of the image in pixels."""


def sample_scene(split: SplitName, rng: np.random.Generator) -> Scene:
    """Sample a scene of four or five items, all in different colours.

    SHARES gives the probabilities of small, middle and large digits.
    """
    places = PLACES if rng.random() < CENTERED else PLACES[:4]
    colors = rng.permutation(list(COLORS))
    items = tuple(
        _sample_item(split, place, str(color), rng)
        for place, color in zip(places, colors, strict=False)
    )
    return Scene(split, int(rng.integers(2**31)), items)


def _sample_item(split: SplitName, place: Place, color: str, rng: np.random.Generator) -> Item:
    size = int(rng.integers(32, 36))
    left, top = (int(rng.integers(1, SLOT - size + 1)) for _ in range(2))
    if "east" in place:
        left = SIDE - size - left
    if "south" in place:
        top = SIDE - size - top
    if place == "center":
        left = top = (SIDE - size) // 2
    low, high = (SMALL, MIDDLE, LARGE)[int(rng.choice(3, p=SHARES))]
    scan = int(rng.integers(len(scans(split).digit)))
    return Item(
        place,
        color,
        str(rng.choice(SHAPES)),
        int(scans(split).digit[scan]),
        scan,
        int(rng.integers(low, high + 1)),
        (left, top, left + size, top + size),
    )


def draw(scene: Scene) -> Image.Image:
    """Draw the scene at full resolution: RGB, `scene.side` pixels square."""
    rng = np.random.default_rng(scene.seed)
    canvas = np.full((scene.side, scene.side, 3), rng.uniform(205, 240), np.float32)
    for item in scene.items:
        left, top, right, bottom = item.box
        color = np.array(COLORS[item.color], np.float32)
        paint(canvas[top:bottom, left:right], mask(item.shape, right - left), color)
        offset = (right - left - item.height) // 2
        x, y = (edge + offset + int(rng.integers(-2, 3)) for edge in (left, top))
        if scene.split == "train":
            ink = warped_glyph("train", item.scan, item.height, rng)
        else:
            ink = glyph("test", item.scan, item.height)
        paint(canvas[y : y + item.height, x : x + item.height], ink, INK)
    canvas += rng.integers(-NOISE, NOISE + 1, canvas.shape, dtype=np.int8)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def paint(area: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> None:
    """Blend `color` into `area` (h, w, 3) in place, with opacity `alpha` (h, w)."""
    area += alpha[..., None] * (color - area)


@lru_cache(maxsize=256)
def mask(shape: str, size: int) -> np.ndarray:
    """Return the share of each pixel that the shape covers, (size, size) float32 in 0..1.

    The shape is drawn at four times the size and then reduced, to smooth the edges.
    """
    big = 4 * size
    image = Image.new("L", (big, big), 0)
    pen = ImageDraw.Draw(image)
    last, half, arm = big - 1, big / 2, big / 4.5
    if shape == "circle":
        pen.ellipse((0, 0, last, last), fill=255)
    elif shape == "square":
        pen.rectangle((0, 0, last, last), fill=255)
    elif shape == "diamond":
        pen.polygon(((half, 0), (last, half), (half, last), (0, half)), fill=255)
    else:
        pen.rectangle((half - arm, 0, half + arm, last), fill=255)
        pen.rectangle((0, half - arm, last, half + arm), fill=255)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32) / 255.0
