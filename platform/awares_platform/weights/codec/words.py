"""Converts tensors to words. A word holds the bits of one element as a signed integer.

WordType.ordered maps floats to integers of the same order. The integers of neighbouring floats
differ by one, which is called one step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.integer]
"""An array with one little-endian signed integer of 1, 2, 4 or 8 bytes per element."""
Bytes = NDArray[np.uint8]
"""An array of unsigned bytes."""

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
    torch.float8_e8m0fnu,  # This dtype has an exponent, but no sign.
)
# A blob stores the index of a dtype, so new dtypes must come at the end of this tuple.
_DTYPES = _SIGN_MAGNITUDE + _PLAIN
_BY_SIZE = {
    1: (torch.uint8, np.int8),
    2: (torch.int16, np.int16),
    4: (torch.int32, np.int32),
    8: (torch.int64, np.int64),
}


@dataclass(frozen=True, slots=True)
class WordType:
    """A dtype and the arithmetic on its words.

    Example:
        WordType(torch.bfloat16, 0, 2, True)
    """

    dtype: torch.dtype
    code: int
    """The dtype's number in a blob."""
    size: int
    """The number of bytes of one element."""
    signed_magnitude: bool
    """True for floats with a sign bit."""

    @classmethod
    def of(cls, dtype: torch.dtype) -> "WordType":
        """Return the word type of a dtype. Raises ValueError for a complex or quantised dtype."""
        if dtype not in _DTYPES:
            known = ", ".join(str(known).removeprefix("torch.") for known in _DTYPES)
            raise ValueError(f"{dtype} cannot be encoded; only {known}")
        return cls(dtype, _DTYPES.index(dtype), dtype.itemsize, dtype in _SIGN_MAGNITUDE)

    @classmethod
    def from_code(cls, code: int) -> "WordType | None":
        """Return the word type with the number `code`, or None for an unknown number."""
        return cls.of(_DTYPES[code]) if code < len(_DTYPES) else None

    def words(self, tensor: Tensor) -> Words:
        """Return the words of a tensor's elements in row-major order.

        The result shares the memory of a contiguous tensor.
        """
        view, integer = _BY_SIZE[self.size]
        # Call `view` before `contiguous`, because the copy of a bool tensor may change its bits.
        return tensor.detach().view(view).contiguous().reshape(-1).numpy().view(integer)

    def ordered(self, words: Words) -> Words:
        """Map the words of floats to integers in the order of the floats.

        -0 becomes -1, and NaNs become the smallest and largest integers. Applying the map twice
        restores the words.
        """
        if not self.signed_magnitude:
            return words
        flip = words >> (8 * self.size - 1)
        flip &= (1 << 8 * self.size - 1) - 1
        return np.bitwise_xor(words, flip, out=flip)

    def steps(self, base: Words, new: Words) -> Words:
        """Return the number of steps from `base` to `new`, modulo 2 ** (bits of a word)."""
        return self.ordered(new) - self.ordered(base)

    def step(self, base: Words, steps: Words) -> Words:
        """Return the words that are `steps` steps above `base`. This method inverts `steps`."""
        return self.ordered(self.ordered(base) + steps)

    def exponent_first(self, words: Words) -> Words:
        """Move the sign of floats to the lowest bit.

        The exponent of bfloat16 and of float32 then fills a byte of its own.
        """
        return words << 1 | words >> (8 * self.size - 1) & 1 if self.signed_magnitude else words

    def exponent_last(self, words: Words) -> Words:
        """Invert `exponent_first`."""
        if not self.signed_magnitude:
            return words
        return words >> 1 & ((1 << 8 * self.size - 1) - 1) | words << (8 * self.size - 1)


def zigzag(steps: Words) -> Words:
    """Map 0, -1, 1, -2 ... to 0, 1, 2, 3 .... The high bytes of small steps are then zero."""
    return (steps << 1) ^ (steps >> (8 * steps.itemsize - 1))


def unzigzag(words: Words) -> Words:
    """Invert `zigzag`."""
    lowest = words & 1
    half = (words >> 1) & ((1 << 8 * words.itemsize - 1) - 1)
    return half ^ -lowest
