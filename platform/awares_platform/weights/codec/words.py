"""Tensors as words: each element's bits as a signed integer, in an order in which a float's neighbours differ by one."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.integer]
"""One signed integer of 1, 2, 4 or 8 bytes per element, little-endian."""
Bytes = NDArray[np.uint8]

_SIGN_MAGNITUDE = (
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)
_PLAIN = (
    torch.bool,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e8m0fnu,  # an exponent without a sign
)
_DTYPES = _SIGN_MAGNITUDE + _PLAIN  # a blob holds the index: append only
_BY_SIZE = {
    1: (torch.uint8, np.int8),
    2: (torch.int16, np.int16),
    4: (torch.int32, np.int32),
    8: (torch.int64, np.int64),
}


@dataclass(frozen=True, slots=True)
class WordType:
    """How a dtype's words behave. `code` stands for the dtype in a blob; `signed_magnitude` is true of floats with a sign bit.

    Example:
        WordType(torch.bfloat16, 0, 2, True)
    """

    dtype: torch.dtype
    code: int
    size: int
    signed_magnitude: bool

    @classmethod
    def of(cls, dtype: torch.dtype) -> "WordType":
        """Raises ValueError for a dtype that no checkpoint has (complex, quantised)."""
        if dtype not in _DTYPES:
            raise ValueError(
                f"{dtype} cannot be encoded; only {', '.join(str(known).removeprefix('torch.') for known in _DTYPES)}"
            )
        return cls(dtype, _DTYPES.index(dtype), dtype.itemsize, dtype in _SIGN_MAGNITUDE)

    @classmethod
    def from_code(cls, code: int) -> "WordType | None":
        """None for a code that stands for nothing."""
        return cls.of(_DTYPES[code]) if code < len(_DTYPES) else None

    def words(self, tensor: Tensor) -> Words:
        """The tensor's elements in row-major order; shares memory with a contiguous tensor."""
        view, integer = _BY_SIZE[self.size]
        return (
            tensor.detach().view(view).contiguous().reshape(-1).numpy().view(integer)
        )  # as integers: torch's copies of bool change bits

    def ordered(self, words: Words) -> Words:
        """Words such that the next larger float is one more (-0 becomes -1, NaNs the ends). Its own inverse, for every bit pattern."""
        if not self.signed_magnitude:
            return words
        flip = words >> (8 * self.size - 1)
        flip &= (1 << 8 * self.size - 1) - 1
        return np.bitwise_xor(words, flip, out=flip)

    def steps(self, base: Words, new: Words) -> Words:
        """How many representable values `new` lies above `base`, modulo 2 ** bits."""
        return self.ordered(new) - self.ordered(base)

    def step(self, base: Words, steps: Words) -> Words:
        """The words that lie `steps` above `base`: the inverse of `steps`."""
        return self.ordered(self.ordered(base) + steps)

    def exponent_first(self, words: Words) -> Words:
        """Floats with the sign moved to the lowest bit: the exponent of bfloat16 and float32 then is a byte of its own."""
        return words << 1 | words >> (8 * self.size - 1) & 1 if self.signed_magnitude else words

    def exponent_last(self, words: Words) -> Words:
        """The inverse of `exponent_first`."""
        return (
            words >> 1 & ((1 << 8 * self.size - 1) - 1) | words << (8 * self.size - 1)
            if self.signed_magnitude
            else words
        )


def zigzag(steps: Words) -> Words:
    """0, -1, 1, -2 ... as 0, 1, 2, 3 ...: small steps get small bytes whatever their sign."""
    return (steps << 1) ^ (steps >> (8 * steps.itemsize - 1))


def unzigzag(words: Words) -> Words:
    """The inverse of `zigzag`."""
    lowest = words & 1
    half = (words >> 1) & ((1 << 8 * words.itemsize - 1) - 1)
    return half ^ -lowest
