"""Functions that make tensors of successive weight versions, or compare tensors bit for bit."""

import numpy as np
import torch
from torch import Tensor

from awares_platform.weights.codec.words import WordType

BF16 = WordType.of(torch.bfloat16)


def bits(tensor: Tensor) -> bytes:
    return (
        tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        if tensor.numel()
        else b""
    )


def same(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors have the same dtype, shape and bits.

    NaNs with equal bits are the same. Zero and negative zero are not.
    """
    return left.dtype == right.dtype and left.shape == right.shape and bits(left) == bits(right)


def of_bits(raw: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...] = (-1,)) -> Tensor:
    raw = raw.view(np.uint8)
    return (
        torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)
        if len(raw)
        else torch.empty(shape if shape != (-1,) else 0, dtype=dtype)
    )


def weights(count: int, seed: int = 0) -> Tensor:
    return (torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.02).bfloat16()


def moved(base: Tensor, share: float, step: int = 1, seed: int = 1) -> Tensor:
    """Return a copy of `base` in which about the fraction `share` of the elements moves up or down.

    An element moves by at most `step` representable numbers.
    """
    random = np.random.default_rng(seed)
    words = BF16.words(base)
    steps = (
        random.choice([-step, step], len(words))
        if step == 1
        else random.integers(-step, step + 1, len(words))
    )
    steps = np.where(random.random(len(words)) < share, steps, 0).astype(np.int16)
    return of_bits(BF16.step(words, steps), torch.bfloat16, tuple(base.shape))
