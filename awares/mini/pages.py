"""Generates pages: large scenes with small print that is illegible in the full view.

    page        224 px square
    full view   112 px square: the processor halves a page if `method.max_pixels` is 12,544
    low view     56 px square
    crop        112 px square: a quadrant at native pixels if `method.crop_scale` is 2

A page is a scene of twice the size, whose small print stays as high as the small digits of a scene.
Only a crop shows small print at a legible size.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from awares.mini.benchmark import ask_about
from awares.mini.digits import SplitName
from awares.mini.scenes import ILLEGIBLE, LARGE, SIDE, SMALL, Item, Scene, sample_scene
from awares.sample import Sample

ZOOM = 2
PAGE_SIDE = ZOOM * SIDE
FULL_PIXELS = SIDE * SIDE
"""With this value of `method.max_pixels`, the processor reduces a page to the size of a scene."""


def generate_pages(split: SplitName, count: int, seed: int) -> Iterator[tuple[bytes, Sample]]:
    """Yield `count` pages as PNG files, each with one labelled question.

    The label is HR if the answer needs small print, and otherwise LR. Curation cannot find these
    labels, because small print is illegible even in the full view.

    Example:
        data, sample = next(generate_pages("train", 1, seed=0))
    """
    return ask_about(page, "mini-pages", split, count, seed)


def page(split: SplitName, rng: np.random.Generator) -> Scene:
    """Sample a page: a scene with all lengths doubled, except the height of the small print.

    Every digit of the scene that is not large becomes small print.
    """
    scene = sample_scene(split, rng)
    return replace(scene, items=tuple(_enlarged(item, rng) for item in scene.items), side=PAGE_SIDE)


def _enlarged(item: Item, rng: np.random.Generator) -> Item:
    left, top, right, bottom = (ZOOM * edge for edge in item.box)
    small = int(rng.integers(SMALL[0], ILLEGIBLE + 1))
    height = ZOOM * item.height if item.height >= LARGE[0] else small
    return replace(item, box=(left, top, right, bottom), height=height)
