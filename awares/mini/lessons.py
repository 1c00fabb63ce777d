"""Turns conversations into batches of tensors, and computes the loss of a batch.

Axes: B conversations, L positions, N images of one size, P patches, F values of a patch.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini.conversation import Conversation, Lesson, LessonForm, converse
from awares.mini.digits import SplitName
from awares.mini.scenes import draw, sample_scene
from awares.mini.vision import CELL, patchify, vision_features

IGNORED = -100
BUCKETS = 3


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """Images of one size.

    `grid` is the number of rows and columns of visual tokens in each image. `positions` holds the
    indices of the image tokens in the flattened batch of token ids.
    """

    grid: tuple[int, int]
    patches_NPF: Tensor
    positions: Tensor


@dataclass(frozen=True, slots=True)
class TalkBatch:
    """A batch of conversations, padded on the right.

    `targets_BL` holds the next id at each position, or IGNORED if the next id is not learned.
    `rope_3BL` holds the M-RoPE positions. `groups` holds the images of all conversations.
    """

    ids_BL: Tensor
    targets_BL: Tensor
    rope_3BL: Tensor
    groups: tuple[ImageGroup, ...]


def talk_batch(
    split: SplitName,
    forms: Mapping[LessonForm, int],
    chat: ChatFormat,
    plain: ChatFormat,
    lesson: Lesson,
    rng: np.random.Generator,
) -> list[TalkBatch]:
    """Return batches of new conversations, each about a new scene.

    `forms` maps each form to a number of conversations. The conversations are sorted by length and
    split into BUCKETS batches, because one batch would be mostly padding.
    """
    talks = []
    for form, count in forms.items():
        for _ in range(count):
            scene = sample_scene(split, rng)
            image = draw(scene)
            frame = chat if rng.random() < 0.5 else plain
            talks.append(converse(form, scene, image, frame, lesson, rng))
    talks.sort(key=lambda talk: len(talk.ids))
    cuts = [len(talks) * cut // BUCKETS for cut in range(BUCKETS + 1)]
    return [collate(talks[start:end], chat.image_token_id) for start, end in pairwise(cuts)]


def collate(talks: Sequence[Conversation], placeholder: int) -> TalkBatch:
    """Pad the conversations to one length, and group the images by size."""
    length = max(len(talk.ids) for talk in talks)
    ids_BL = np.zeros((len(talks), length), np.int64)
    targets_BL = np.full((len(talks), length), IGNORED, np.int64)
    rope_3BL = np.zeros((3, len(talks), length), np.int64)
    images: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    places: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for row, talk in enumerate(talks):
        count = len(talk.ids)
        ids_BL[row, :count] = talk.ids
        targets_BL[row, : count - 1] = np.where(talk.learned[1:], talk.ids[1:], IGNORED)
        rope_3BL[:, row, :count], starts = _rope(talk, placeholder)
        for pixels, start in zip(talk.images, starts, strict=True):
            grid = (pixels.shape[0] // CELL, pixels.shape[1] // CELL)
            images[grid].append(pixels)
            places[grid].append(row * length + start + np.arange(grid[0] * grid[1]))
    groups = []
    for grid in images:
        positions = torch.from_numpy(np.concatenate(places[grid]))
        groups.append(ImageGroup(grid, patchify(np.stack(images[grid])), positions))
    ids, targets, rope = map(torch.from_numpy, (ids_BL, targets_BL, rope_3BL))
    return TalkBatch(ids, targets, rope, tuple(groups))


def _rope(talk: Conversation, placeholder: int) -> tuple[np.ndarray, list[int]]:
    """Return the M-RoPE positions (3, L) of a conversation, and the start index of each image."""
    grids = [(pixels.shape[0] // CELL, pixels.shape[1] // CELL) for pixels in talk.images]
    positions = QWEN2_5_VL.positions(talk.ids, placeholder, grids)
    starts, at = [], 0
    for rows, columns in grids:
        at = talk.ids.index(placeholder, at)
        starts.append(at)
        at += rows * columns
    return np.array(positions, np.int64).T, starts


def answer_logits(
    model: Qwen2_5_VLForConditionalGeneration, batch: TalkBatch
) -> tuple[Tensor, Tensor]:
    """Return the logits (K, vocabulary) and targets (K,) of the K learned positions, in order."""
    inner = model.model
    embeds_BLD = inner.language_model.embed_tokens(batch.ids_BL)
    shape = embeds_BLD.shape
    flat = embeds_BLD.reshape(-1, shape[-1])
    for group in batch.groups:
        features = vision_features(inner.visual, group.patches_NPF, *group.grid)
        flat = flat.index_copy(0, group.positions, features.reshape(-1, shape[-1]))
    hidden_BLD = inner.language_model(
        inputs_embeds=flat.view(shape), position_ids=batch.rope_3BL, use_cache=False
    ).last_hidden_state
    learned = batch.targets_BL != IGNORED
    return model.lm_head(hidden_BLD[learned]), batch.targets_BL[learned]


def answer_loss(model: Qwen2_5_VLForConditionalGeneration, batches: Sequence[TalkBatch]) -> Tensor:
    """Return the mean negative log-likelihood of the learned ids of all batches."""
    pairs = [answer_logits(model, batch) for batch in batches]
    logits = torch.cat([logits for logits, _ in pairs])
    targets = torch.cat([targets for _, targets in pairs])
    return functional.cross_entropy(logits, targets)
