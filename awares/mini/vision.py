"""Runs the vision tower of Qwen2.5-VL on a batch of small images of one size.

transformers computes attention in a loop over images. For small images, the loop costs more than
the arithmetic. Images up to 112 px fit one attention window, so this module needs no loop.

Axes: N images, P patches (14 px), T = P / 4 merged tokens, D hidden, H heads.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
PATCH, MERGE = 14, 2
CELL = PATCH * MERGE


def patchify(images: np.ndarray) -> Tensor:
    """Cut images (N, height, width, 3) uint8 into normalised patches (N, P, 588).

    The sides must be multiples of 28. As in the processor, the 2 x 2 patches of one merged token
    are adjacent in the result.
    """
    count, height, width, _ = images.shape
    rows, columns = height // CELL, width // CELL
    pixels = (images.astype(np.float32) / 255.0 - MEAN) / STD
    grid = pixels.reshape(count, rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    cells = grid.transpose(0, 1, 4, 2, 5, 7, 3, 6)
    patches = cells.reshape(count, rows * columns * MERGE**2, 3 * PATCH**2)
    return torch.from_numpy(np.ascontiguousarray(patches))


def vision_features(visual: Any, patches_NPF: Tensor, rows: int, columns: int) -> Tensor:
    """Return the merged features (N, T, out) of images of `rows` x `columns` merged tokens.

    Qwen2.5-VL treats a still image as two identical frames. The function therefore adds the patch
    weights of the two frames.
    """
    count, length, _ = patches_NPF.shape
    weight = visual.patch_embed.proj.weight.sum(2).flatten(1)
    hidden_NPD = functional.linear(patches_NPF, weight)
    cos, sin = visual.rotary_pos_emb(hidden_NPD, _patch_positions(rows, columns))
    for block in visual.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(hidden_NPD)).view(count, length, 3, attention.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, cos, sin), _rotate(key, cos, sin), value
        )
        hidden_NPD = hidden_NPD + attention.proj(mixed.transpose(1, 2).reshape(count, length, -1))
        hidden_NPD = hidden_NPD + block.mlp(block.norm2(hidden_NPD))
    return visual.merger(hidden_NPD).view(count, length // MERGE**2, -1)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat((-second, first), -1) * sin


def _patch_positions(rows: int, columns: int) -> Tensor:
    """Return the row and the column of every patch, (P, 2), in the order of `patchify`."""
    grid = np.moveaxis(np.indices((rows * MERGE, columns * MERGE)), 0, -1)
    ordered = grid.reshape(rows, MERGE, columns, MERGE, 2).transpose(0, 2, 1, 3, 4)
    return torch.from_numpy(np.ascontiguousarray(ordered.reshape(-1, 2)))
