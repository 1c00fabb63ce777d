"""AwaRes-Mini's scenes: coloured shapes in the four quadrants and the centre, each carrying a handwritten digit.

A scene is 112 px square (16 merged visual tokens); its low view is 56 px (4 tokens) and so is a quadrant. Colours and shapes are legible in
both views. Digits are drawn at heights from `SMALL` to `LARGE`: large ones survive the halving, small ones do not, and those
between survive it sometimes, so that when to crop is a judgement about the image and not a rule. Training scans are warped by chance, test
scans drawn as they are.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from awares.crops import Box
from awares.mini.digits import Split, glyph, scans, warped_glyph

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
ILLEGIBLE = 10  # px: halved, a digit up to here is lost on the shipped policy in most cases (by height: its model card)
LARGE = (19, 25)
SHARES = (0.25, 0.15, 0.6)  # of small, middle and large digits
CENTERED = 0.4  # share of scenes with an item in the centre
SLOT = 38  # px: quadrant objects stay in the outer corner, so that the centre is free
INK = np.array((20, 20, 20), np.float32)
NOISE = 10  # px values are off by up to this much


@dataclass(frozen=True, slots=True)
class Item:
    """A shape with a digit on it. `box` is the shape's box, `height` the digit's, in pixels of the full scene.

    Example:
        Item("northwest", "red", "circle", 7, 412, 11, (3, 2, 37, 36))
    """

    place: Place
    color: str
    shape: str
    digit: int
    scan: int
    height: int
    box: Box


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene before it is drawn. `split` names the scans, `seed` the background."""

    split: Split
    seed: int
    items: tuple[Item, ...]


def sample_scene(split: Split, rng: np.random.Generator) -> Scene:
    """Draws a scene: four or five items, no colour twice, heights by `SHARES`."""
    places = PLACES if rng.random() < CENTERED else PLACES[:4]
    colors = rng.permutation(list(COLORS))
    items = tuple(
        _sample_item(split, place, str(color), rng)
        for place, color in zip(places, colors, strict=False)
    )
    return Scene(split, int(rng.integers(2**31)), items)


def _sample_item(split: Split, place: Place, color: str, rng: np.random.Generator) -> Item:
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
    """The scene at full resolution, RGB, `SIDE` x `SIDE`."""
    rng = np.random.default_rng(scene.seed)
    canvas = np.full((SIDE, SIDE, 3), rng.uniform(205, 240), np.float32)
    for item in scene.items:
        left, top, right, bottom = item.box
        paint(
            canvas[top:bottom, left:right],
            mask(item.shape, right - left),
            np.array(COLORS[item.color], np.float32),
        )
        offset = (right - left - item.height) // 2
        x, y = (edge + offset + int(rng.integers(-2, 3)) for edge in (left, top))
        ink = (
            warped_glyph("train", item.scan, item.height, rng)
            if scene.split == "train"
            else glyph("test", item.scan, item.height)
        )
        paint(canvas[y : y + item.height, x : x + item.height], ink, INK)
    canvas += rng.integers(-NOISE, NOISE + 1, canvas.shape, dtype=np.int8)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def paint(area: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> None:
    """Blends `color` into `area` (h, w, 3) in place by `alpha` (h, w)."""
    area += alpha[..., None] * (color - area)


@lru_cache(maxsize=256)
def mask(shape: str, size: int) -> np.ndarray:
    """The shape's coverage, (size, size) float32 in 0..1, anti-aliased by drawing at four times the size."""
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
