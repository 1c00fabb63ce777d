"""Collates episodes and demonstrations into tensors.

    turns -- ids, one placeholder per view ----------+
           |                                         v
           +- views --pixels.py--> image_grid_thw --expand--> input_ids
                               +-> pixel_values

`input_ids` holds exactly one image token for each feature vector that the vision tower returns.

Axes of the tensors:
    B  sequences
    T  tokens, padded on the right
    I  images in the prompts of all sequences, in order of appearance
    U  distinct views among these images
    N  patches of all images
    D  pixel values of one patch

The model computes its three-axis position ids inside `forward`, from the image grids, the attention
mask and `mm_token_type_ids`. `mm_token_type_ids` is 1 at image tokens. WITHOUT this tensor,
transformers silently gives image tokens the positions of plain text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from awares.demonstration import Demonstration
from awares.episode import Episode, Turn
from awares.errors import PolicyError
from awares.pixels import Remember, prepare
from awares.tokens import VisionLimits, visual_tokens
from awares.view import ImageView, view_size

Item = Episode | Demonstration


@dataclass(frozen=True, slots=True)
class Batch:
    """The input tensors of a forward pass and of a loss.

    Example:
        batch = collate(episodes, images, processor, limits).to("cuda")
        logits = model(**batch.forward_inputs()).logits
    """

    input_ids_BT: Tensor
    """Token ids, with one image token for each feature vector that the vision tower returns."""
    attention_mask_BT: Tensor
    """1 at real tokens, 0 at padding."""
    mm_token_type_ids_BT: Tensor
    """1 at image tokens, 0 elsewhere.

    WITHOUT this tensor, transformers silently gives image tokens the positions of plain text.
    """
    pixel_values_ND: Tensor
    """The normalised pixels of each patch."""
    image_grid_thw_I3: Tensor
    """The number of frames, patch rows and patch columns of each image."""
    image_views_I: Tensor
    """The index of the view that each image shows. Views are numbered as they first appear.

    Images with the same index have the same pixels.
    """
    action_mask_BT: Tensor
    """True at the sampled tokens of episodes and the target tokens of demonstrations."""
    behaviour_logprobs_BT: Tensor
    """The logprob of each sampled token under the policy that sampled it, and 0 elsewhere."""
    weights_BT: Tensor
    """The weight of each token in the SFT loss, and 0 outside the action mask."""
    versions_BT: Tensor
    """The version of the policy that sampled each token, and -1 outside the action mask."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return a copy of the batch on `device`."""
        return replace(
            self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)}
        )

    def forward_inputs(self) -> dict[str, Tensor]:
        """Return the keyword arguments of the model's `forward`."""
        return {
            "input_ids": self.input_ids_BT,
            "attention_mask": self.attention_mask_BT,
            "mm_token_type_ids": self.mm_token_type_ids_BT,
            "pixel_values": self.pixel_values_ND,
            "image_grid_thw": self.image_grid_thw_I3,
        }


@dataclass(frozen=True, slots=True)
class _Row:
    """One sequence. Each field holds one value per token, including one for each visual token.

    Example:
        _Row(
            ids=[151644, 17, 151645],
            actions=[False, True, True],
            logprobs=[0.0, -0.1, -0.02],
            weights=[0.0, 1.0, 1.0],
            versions=[-1, 3, 3],
        )
    """

    ids: list[int]
    actions: list[bool]
    logprobs: list[float]
    weights: list[float]
    versions: list[int]


def collate(
    items: Sequence[Item],
    images: Callable[[str], Image],
    processor: Any,
    limits: VisionLimits,
    low_ratio: float = 0.5,
    tool_weight: float = 1.0,
    remember: Remember | None = None,
) -> Batch:
    """Collate episodes or demonstrations into one batch.

    Every item needs at least one view, so that the vision tower runs on every rank.

    - `images` returns the original image with a given hash.
    - `limits` replaces the processor's own limits on the area of an image.
    - `low_ratio` is the ratio of a low-resolution view's side to the image's side, if `View.scale`
      is 1.
    - `tool_weight` is the weight of each sampled token of a request: the paper's w_t.
    - `remember` is a cache of processed views. Use a cache only with the same `processor`, `limits`
      and `low_ratio`.

    Raises PolicyError if an item has no view, the tokenizer has no pad token, or a sampled token is
    an image placeholder. Also raises PolicyError if an image, or the number of its visual tokens,
    does not match the image size that the item states.
    """
    assert items, "a batch holds at least one item"
    views = [_views(item) for item in items]
    flat = [view for shown in views for view in shown]
    make = partial(prepare, images=images, processor=processor, limits=limits, low_ratio=low_ratio)
    pixel_values_ND, grids_I3 = make(flat) if remember is None else remember(flat, make)
    counts = (grids_I3.prod(1) // limits.merge**2).tolist()
    rows, start = [], 0
    for item, shown in zip(items, views, strict=True):
        here = counts[start : start + len(shown)]
        _check_counts(item, here, limits, low_ratio)
        rows.append(_row(item, here, processor.image_token_id, tool_weight))
        start += len(shown)
    return _tensors(rows, pixel_values_ND, grids_I3, _numbers(flat), processor)


def sequence_length(item: Item, limits: VisionLimits, low_ratio: float = 0.5) -> int:
    """Return the length of an item's sequence in tokens, including its visual tokens.

    The recorded image size determines the number of visual tokens, so no image is decoded.
    """
    written = sum(len(turn.context_ids) + len(turn.sampled_ids) for turn in item.turns)
    sizes = [
        view_size(view, item.image_size, low_ratio) for turn in item.turns for view in turn.views
    ]
    return written + sum(visual_tokens(size, limits) - 1 for size in sizes)


def _views(item: Item) -> list[ImageView]:
    """Return the item's views, in order."""
    views = [view for turn in item.turns for view in turn.views]
    if not views:
        raise PolicyError(
            f"{item.sample_id}: no view, so nothing to train on; "
            "leave out episodes that stopped before their first turn"
        )
    return [ImageView(item.image, item.image_size, view) for view in views]


def _numbers(views: Sequence[ImageView]) -> Tensor:
    """Number the distinct views from 0, and return the number of each of `views`."""
    numbers: dict[ImageView, int] = {}
    return torch.tensor([numbers.setdefault(view, len(numbers)) for view in views])


def _check_counts(
    item: Item, counts: Sequence[int], limits: VisionLimits, low_ratio: float
) -> None:
    sizes = [
        view_size(view, item.image_size, low_ratio) for turn in item.turns for view in turn.views
    ]
    expected = [visual_tokens(size, limits) for size in sizes]
    if list(counts) != expected:
        raise PolicyError(
            f"{item.sample_id}: the processor makes {list(counts)} tokens of views {sizes}, "
            f"{expected} expected; "
            f"its patch and merge sizes must be {limits.patch} and {limits.merge}"
        )


def _row(item: Item, counts: Sequence[int], image_token_id: int, tool_weight: float) -> _Row:
    row, remaining = _Row([], [], [], [], []), list(counts)
    for number, turn in enumerate(item.turns, start=1):
        _check_turn(item, number, turn, image_token_id)
        context = _expand(turn.context_ids, remaining, image_token_id)
        row.ids.extend((*context, *turn.sampled_ids))
        row.actions.extend([False] * len(context) + [True] * len(turn.sampled_ids))
        row.logprobs.extend([0.0] * len(context) + list(turn.logprobs))
        weight = tool_weight if turn.crops else 1.0
        row.weights.extend([0.0] * len(context) + [weight] * len(turn.sampled_ids))
        row.versions.extend([-1] * len(context) + list(turn.versions))
    return row


def _check_turn(item: Item, number: int, turn: Turn, image_token_id: int) -> None:
    places = turn.context_ids.count(image_token_id)
    if places != len(turn.views):
        raise PolicyError(
            f"{item.sample_id}, turn {number}: {places} image placeholders "
            f"for {len(turn.views)} views"
        )
    if image_token_id in turn.sampled_ids:
        raise PolicyError(
            f"{item.sample_id}, turn {number}: an image placeholder was sampled; "
            "mask ChatFormat.blocked_ids when sampling"
        )


def _expand(ids: Sequence[int], counts: list[int], image_token_id: int) -> list[int]:
    """Return `ids`, where the n-th image placeholder is repeated `counts[n]` times (n from 0).

    The function removes each count that it uses from the list `counts`.
    """
    expanded: list[int] = []
    for token in ids:
        expanded.extend([token] * counts.pop(0) if token == image_token_id else [token])
    return expanded


def _tensors(
    rows: Sequence[_Row],
    pixel_values_ND: Tensor,
    grids_I3: Tensor,
    views_I: Tensor,
    processor: Any,
) -> Batch:
    width = max(len(row.ids) for row in rows)
    pad_id = processor.tokenizer.pad_token_id
    if pad_id is None:
        raise PolicyError(
            "the tokenizer has no pad token; "
            "set pad_token to <|endoftext|> in tokenizer_config.json"
        )
    ids_BT = torch.tensor([_fill(row.ids, width, pad_id) for row in rows])
    return Batch(
        input_ids_BT=ids_BT,
        attention_mask_BT=torch.tensor([_fill([1] * len(row.ids), width, 0) for row in rows]),
        mm_token_type_ids_BT=(ids_BT == processor.image_token_id).int(),
        pixel_values_ND=pixel_values_ND,
        image_grid_thw_I3=grids_I3,
        image_views_I=views_I,
        action_mask_BT=torch.tensor([_fill(row.actions, width, False) for row in rows]),
        behaviour_logprobs_BT=torch.tensor([_fill(row.logprobs, width, 0.0) for row in rows]),
        weights_BT=torch.tensor([_fill(row.weights, width, 0.0) for row in rows]),
        versions_BT=torch.tensor([_fill(row.versions, width, -1) for row in rows]),
    )


def _fill(values: Sequence[Any], width: int, padding: Any) -> list[Any]:
    return [*values, *[padding] * (width - len(values))]
