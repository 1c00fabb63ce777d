"""Replaces frequent byte values by short codes, and packs two or four codes into one byte.

zstd alone spends at least one bit on each byte, and finds costly matches in bytes with few distinct
values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from awares_platform.weights.codec.words import Bytes

_BLOCK = 1 << 15
"""Number of packed bytes that one call of `np.take` looks up."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The byte values that have a code, in the order of their codes.

    A byte without a code is an outsider. All outsiders share the highest code.

    Example:
        Alphabet(2, np.array([0, 1, 2], np.uint8))
    """

    bits: int
    """The number of bits of a code, 2 or 4."""
    values: Bytes

    @classmethod
    def of(cls, data: Bytes, outsiders: float) -> "Alphabet | None":
        """Return the smallest alphabet that leaves few bytes of `data` without a code.

        `outsiders` is the largest allowed share of bytes without a code. The result is None if all
        bytes are identical, or if no alphabet has enough codes.
        """
        counts = np.bincount(data, minlength=256)
        order = np.argsort(-counts, kind="stable").astype(np.uint8)
        sizes = [
            bits
            for bits in (2, 4)
            if counts[order[(1 << bits) - 1 :]].sum() <= outsiders * len(data)
        ]
        if not sizes or counts[order[0]] == len(data):
            return None
        return cls(sizes[0], order[: (1 << sizes[0]) - 1])

    @property
    def outsider(self) -> int:
        """The code that all outsiders share."""
        return (1 << self.bits) - 1

    @property
    def digits(self) -> int:
        """The number of codes in a packed byte."""
        return 8 // self.bits

    def pack(self, data: Bytes) -> tuple[Bytes, Bytes]:
        """Return the packed codes, and the outsiders in their order in `data`.

        The lowest bits of a packed byte hold its first code.
        """
        table = np.full(256, self.outsider, np.uint8)
        table[self.values] = np.arange(self.outsider)
        coded = data.tobytes().translate(table.tobytes())
        padded = coded.ljust(-(-len(data) // self.digits) * self.digits, b"\0")
        codes = np.frombuffer(padded, np.uint8)
        # An element of `rows` holds all codes of one packed byte, with one code in each byte.
        rows = codes.view(f"u{self.digits}")
        packed = rows.astype(np.uint8)
        for digit in range(1, self.digits):
            packed |= (rows >> (8 - self.bits) * digit).astype(np.uint8)
        return packed, data[codes[: len(data)] == self.outsider]

    def unpack(self, packed: Bytes, outsiders: Bytes, length: int) -> Bytes | None:
        """Return the `length` bytes that `pack` packed.

        The result is None if there are not as many outsiders as the packed codes need.
        """
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        codes = np.arange(256, dtype=np.uint8)[:, None] >> shifts & self.outsider
        data = _look_up(np.append(self.values, np.uint8(0))[codes], packed)[:length]
        if not len(outsiders):
            return None if self._has_outsider(packed) else data
        outside = codes == self.outsider
        has_outsider = packed.tobytes().translate(outside.any(axis=1).tobytes())
        hit = np.flatnonzero(np.frombuffer(has_outsider, bool))
        row, digit = np.nonzero(outside[packed[hit]])
        places = hit[row] * self.digits + digit
        if len(places) != len(outsiders) or places[-1] >= length:
            return None
        data[places] = outsiders
        return data

    def _has_outsider(self, packed: Bytes) -> bool:
        """Return whether a code in `packed` is the outsiders' code, whose bits are all set."""
        ones = packed & packed >> 1
        if self.bits == 4:
            ones &= ones >> 2
        lowest_bits = np.uint8(0x55 if self.bits == 2 else 0x11)
        return bool((ones & lowest_bits).any())


def _look_up(table: NDArray[np.generic], packed: Bytes) -> Bytes:
    """Return the table row of each packed byte.

    The lookup works in blocks to bound the memory, because numpy widens the indices to int64.
    """
    rows = table.view(f"u{table.shape[1]}").reshape(-1)
    found = np.empty(len(packed), rows.dtype)
    for at in range(0, len(packed), _BLOCK):
        np.take(rows, packed[at : at + _BLOCK], out=found[at : at + _BLOCK], mode="clip")
    return found.view(np.uint8)
