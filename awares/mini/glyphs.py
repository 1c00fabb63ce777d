"""Trains the vision tower to classify the items of a scene by colour, shape, digit and place.

The features of an item are the mean of the merged tokens under the item's box, weighted by area. A
logit is the dot product of these features and the word embedding of a class, such as " red". The
place is classified only in views of the whole scene. With this training, the tower learns to read
digits within minutes. If a model of this size trains only on conversations, it learns to read
digits late or never.

This training is the glyph stage of `awares.mini.pretrain`. After this stage, the features of a red
circle contain the embeddings of " red" and " circle". Attention can therefore find the item of a
question by comparing embeddings. The model can answer by copying an embedding.

Axes: R items (records), T merged tokens, D width, K values of an attribute, N views of one size, P
patches of a view, F values of a patch.
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
from awares.mini.digits import SplitName
from awares.mini.scenes import COLORS, PLACES, SHAPES, SIDE, Item, draw, sample_scene
from awares.mini.vision import CELL, patchify, vision_features
from awares.view import View, full_view

HEADS = {"color": tuple(COLORS), "shape": SHAPES, "digit": tuple(range(10)), "place": PLACES}
UNKNOWN = -100
"""The place label of an item in a crop. A crop does not show where in the scene the item is, so the
loss ignores this label."""

SCENES, FULL_EVERY, CROP_EVERY = 96, 4, 2

FAINT, LEGIBLE = 0.2, 14
"""In the low-resolution view, a digit has the loss weight FAINT if it is less than LEGIBLE px high
at full resolution. In this view, such a digit is mostly noise."""

SHARPNESS = 1.0
"""The initial scale of the logits.

A word embedding has a squared norm of about 7. The logit of an item is therefore about 7 if its
features equal the embedding.
"""

CENTRAL = 3.0
"""The loss weight of the digit of a central item is multiplied by this factor.

Central items need more training. They are rarer than other items, and only they lie across four
tokens in the low-resolution view.
"""


@dataclass(frozen=True, slots=True)
class Sight:
    """The patches of views of one size, and the R items in these views."""

    grid: tuple[int, int]
    """The number of rows and columns of merged tokens in a view."""
    patches_NPF: Tensor
    view_R: Tensor
    """The index of the item's view."""
    share_RT: Tensor
    """The share of the item's area that lies in each token's square."""
    labels_R4: Tensor
    """The classes of the item: colour, shape, digit and place."""
    weight_R: Tensor
    """The weight of the item's digit in the loss."""
    height_R: Tensor
    """The height of the item's digit in pixels."""


def glyph_batch(split: SplitName, rng: np.random.Generator) -> tuple[Sight, ...]:
    """Draw new scenes, and return their low-resolution views, crops and full views.

    Every scene gives a low-resolution view, every second scene a crop, and every fourth scene a
    full view.
    """
    low, crops, full = [], [], []
    for index in range(SCENES):
        scene = sample_scene(split, rng)
        image = draw(scene)
        low.append((render(image, View(None)), full_view(SIZE).box, scene.items))
        if index % CROP_EVERY == 0:
            item = scene.items[int(rng.integers(len(scene.items)))]
            boxes = [crop_box(crop, SIZE) for crop in ONE_CROP]
            box = next(box for box in boxes if _inside(box, item.box))
            shown = [other for other in scene.items if _inside(box, other.box)]
            crops.append((render(image, View(box)), box, shown))
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
    """Return the share (T,) of the item's area in each token's square. The shares sum to 1."""
    rows = _overlap(grid[0], view[1], view[3], item[1], item[3])
    columns = _overlap(grid[1], view[0], view[2], item[0], item[2])
    area = np.outer(rows, columns).reshape(-1)
    return (area / area.sum()).astype(np.float32)


def _overlap(cells: int, start: int, end: int, low: int, high: int) -> np.ndarray:
    edges = np.linspace(start, end, cells + 1)
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)


class GlyphReader:
    """Classifies the items of a scene with the vision tower.

    A logit is the dot product of the item's features with a fixed word embedding, times the learned
    `sharpness` of the attribute: colour, shape, digit or place.
    """

    def __init__(self, visual: nn.Module, words: Callable[[str], Tensor]) -> None:
        """`words` returns the embedding (D,) of a phrase, summed over the tokens of the phrase."""
        self.visual = visual
        self.sharpness = nn.Parameter(torch.full((len(HEADS),), SHARPNESS))
        self._words = {
            name: torch.stack([words(f" {value}") for value in values])
            for name, values in HEADS.items()
        }

    def loss(self, sights: Sequence[Sight]) -> Tensor:
        """Return the weighted sum of the mean cross-entropies of the four attributes.

        The digit has the factor 2. Colour, shape and place have the factor 0.5 each.
        """
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
        """Return one line for each kind of view, with the accuracy on test digits by height."""
        hits: dict[tuple[int, int], list[bool]] = defaultdict(list)
        for seed in range(batches):
            sights = glyph_batch("test", np.random.default_rng((seed, 99)))
            digits = torch.cat([sight.labels_R4[:, 2] for sight in sights])
            right = self._logits(sights)["digit"].argmax(-1) == digits
            heights = torch.cat([sight.height_R for sight in sights])
            kinds = np.repeat(np.arange(3), [len(sight.view_R) for sight in sights])
            for kind, height, hit in zip(kinds, heights.tolist(), right.tolist(), strict=True):
                hits[int(kind), height // 4 * 4].append(hit)
        curve: dict[int, list[str]] = defaultdict(list)
        for kind, height in sorted(hits):
            curve[kind].append(f"{height} px {np.mean(hits[kind, height]):.2f}")
        names = (f"low view ({SIDE // 2} px)", "crop", "full view")
        return [f"{name}: " + ", ".join(curve[kind]) for kind, name in enumerate(names)]
