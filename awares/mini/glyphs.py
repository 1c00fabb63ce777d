"""The glyph stage: the vision tower learns to read by plain classification, in the language model's own words.

For every item in a view the merged tokens under its box are averaged and compared with the embeddings of words: its colour, shape, digit
and, where the whole scene is in view, its place. A digit read out of a conversation comes late or never at this size; read this way within
minutes. And because a red circle's features hold the embeddings of " red" and " circle", attention finds what a question names by
comparing like with like, one rule for all words, and the answer is a copy.

Axes: R items (records), T merged tokens, D width, K values of an attribute.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional

from awares.crops import Box, crop_box
from awares.images import render
from awares.mini.conversation import ONE_CROP, SIZE
from awares.mini.digits import Split
from awares.mini.scenes import COLORS, PLACES, SHAPES, SIDE, Item, draw, sample_scene
from awares.mini.vision import CELL, patchify, vision_features
from awares.view import View, full_view

HEADS = {"color": tuple(COLORS), "shape": SHAPES, "digit": tuple(range(10)), "place": PLACES}
UNKNOWN = -100  # the place of an item in a crop
SCENES, FULL_EVERY, CROP_EVERY = 96, 4, 2
FAINT, LEGIBLE = (
    0.2,
    14,
)  # a digit below LEGIBLE px in the low view counts this much: it is mostly noise there
SHARPNESS = 1.0  # of the comparison with words, to begin with: in units of 1 / the squared length of a word, about 7
CENTRAL = 3.0  # an item in the centre counts this much: it is rarer, and alone in lying across four tokens


@dataclass(frozen=True, slots=True)
class Sight:
    """Views of one grid (rows, columns): patches, and per item its view, the share of each token under it, its labels and its weight."""

    grid: tuple[int, int]
    patches_NPF: Tensor
    view_R: Tensor
    share_RT: Tensor
    labels_R4: Tensor
    weight_R: Tensor
    height_R: Tensor


def glyph_batch(split: Split, rng: np.random.Generator) -> tuple[Sight, ...]:
    """The low views of fresh scenes, a crop of every second and the full view of every fourth."""
    low, crops, full = [], [], []
    for index in range(SCENES):
        scene = sample_scene(split, rng)
        image = draw(scene)
        low.append((render(image, View(None)), full_view(SIZE).box, scene.items))
        if index % CROP_EVERY == 0:
            item = scene.items[int(rng.integers(len(scene.items)))]
            box = next(
                crop_box(crop, SIZE) for crop in ONE_CROP if _inside(crop_box(crop, SIZE), item.box)
            )
            crops.append(
                (
                    render(image, View(box)),
                    box,
                    [other for other in scene.items if _inside(box, other.box)],
                )
            )
        if index % FULL_EVERY == 0:
            full.append((image, full_view(SIZE).box, scene.items))
    return _sight(low, halved=True), _sight(crops), _sight(full)


def _inside(outer: Box, inner: Box) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[2] >= inner[2]
        and outer[3] >= inner[3]
    )


def _sight(views: Sequence[tuple[Image, Box, Sequence[Item]]], halved: bool = False) -> Sight:
    pixels = np.stack([np.asarray(image) for image, _, _ in views])
    grid = (pixels.shape[1] // CELL, pixels.shape[2] // CELL)
    records = [(index, box, item) for index, (_, box, items) in enumerate(views) for item in items]
    labels = [
        [
            HEADS["color"].index(item.color),
            HEADS["shape"].index(item.shape),
            item.digit,
            PLACES.index(item.place) if box == (0, 0, *SIZE) else UNKNOWN,
        ]
        for _, box, item in records
    ]
    return Sight(
        grid,
        patchify(pixels),
        torch.tensor([index for index, _, _ in records]),
        torch.from_numpy(np.stack([_share(grid, box, item.box) for _, box, item in records])),
        torch.tensor(labels),
        torch.tensor([_weight(item, halved) for _, _, item in records]),
        torch.tensor([item.height for _, _, item in records]),
    )


def _weight(item: Item, halved: bool) -> float:
    faint = FAINT if halved and item.height < LEGIBLE else 1.0
    return faint * (CENTRAL if item.place == "center" else 1.0)


def _share(grid: tuple[int, int], view: Box, item: Box) -> np.ndarray:
    """Share of the item's area under each merged token of the view, (T,), summing to 1."""
    rows = _overlap(grid[0], view[1], view[3], item[1], item[3])
    columns = _overlap(grid[1], view[0], view[2], item[0], item[2])
    area = np.outer(rows, columns).reshape(-1)
    return (area / area.sum()).astype(np.float32)


def _overlap(cells: int, start: int, end: int, low: int, high: int) -> np.ndarray:
    edges = np.linspace(start, end, cells + 1)
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)


class GlyphReader:
    """The vision tower, judged by how well its features name attributes: by dot products with fixed word embeddings, times `sharpness`."""

    def __init__(self, visual: nn.Module, words: Callable[[str], Tensor]) -> None:
        """`words` gives the embedding (D,) of a phrase, the sum over its tokens."""
        self.visual = visual
        self.sharpness = nn.Parameter(torch.full((len(HEADS),), SHARPNESS))
        self._words = {
            name: torch.stack([words(f" {value}") for value in values])
            for name, values in HEADS.items()
        }

    def loss(self, sights: Sequence[Sight]) -> Tensor:
        """Cross-entropy of colour, shape, place and (twice) digit, over all views."""
        weights = torch.cat([sight.weight_R for sight in sights])
        labels = torch.cat([sight.labels_R4 for sight in sights])
        logits = self._logits(sights)
        named = {
            name: functional.cross_entropy(logits[name], labels[:, column], reduction="none")
            for column, name in enumerate(HEADS)
        }
        digit = (named["digit"] * weights).sum() / weights.sum()
        place = named["place"].sum() / (labels[:, 3] != UNKNOWN).sum()
        return 0.5 * named["color"].mean() + 0.5 * named["shape"].mean() + 0.5 * place + 2 * digit

    def _logits(self, sights: Sequence[Sight]) -> dict[str, Tensor]:
        pooled = []
        for sight in sights:
            features = vision_features(self.visual, sight.patches_NPF, *sight.grid)
            pooled.append(torch.einsum("rt,rtd->rd", sight.share_RT, features[sight.view_R]))
        items_RD = torch.cat(pooled)
        scales = self.sharpness.unbind()
        return {
            name: scale * items_RD @ words_KD.T
            for scale, (name, words_KD) in zip(scales, self._words.items(), strict=True)
        }

    @torch.no_grad()
    def lines(self, batches: int = 3) -> list[str]:
        """The reading curve on test scans: digit accuracy by height, for the low view, crops and the full view."""
        hits: dict[tuple[int, int], list[bool]] = defaultdict(list)
        for seed in range(batches):
            sights = glyph_batch("test", np.random.default_rng((seed, 99)))
            right = self._logits(sights)["digit"].argmax(-1) == torch.cat(
                [sight.labels_R4[:, 2] for sight in sights]
            )
            heights = torch.cat([sight.height_R for sight in sights])
            kinds = np.repeat(np.arange(3), [len(sight.view_R) for sight in sights])
            for kind, height, hit in zip(kinds, heights.tolist(), right.tolist(), strict=True):
                hits[int(kind), height // 4 * 4].append(hit)
        names = (f"low view ({SIDE // 2} px)", "crop", "full view")
        curve = {
            kind: [
                f"{height} px {np.mean(hits[k, height]):.2f}"
                for k, height in sorted(hits)
                if k == kind
            ]
            for kind in range(3)
        }
        return [f"{name}: " + ", ".join(curve[kind]) for kind, name in enumerate(names)]
