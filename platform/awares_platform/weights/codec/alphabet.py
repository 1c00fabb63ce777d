"""Bytes of a small alphabet, several to a byte.

Exponents, and small steps where most words moved, are a handful of values. Byte by byte zstd finds matches in them that cost more than they
save, and Huffman coding spends a whole bit on a value however common. Two or four of them in a byte have neither fault, and are less to do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from awares_platform.weights.codec.words import Bytes

_BLOCK = 1 << 15  # bytes looked up at a time


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The values that have a code of `bits` bits (2 or 4). The highest code stands for every other value, an outsider.

    Example:
        Alphabet(2, np.array([0, 1, 2], np.uint8))
    """

    bits: int
    values: Bytes

    @classmethod
    def of(cls, data: Bytes, outsiders: float) -> "Alphabet | None":
        """The smallest that leaves at most that share of the data outside; None if none does, or all bytes are equal and need none."""
        counts = np.bincount(data, minlength=256)
        order = np.argsort(-counts, kind="stable").astype(np.uint8)
        sizes = [
            bits
            for bits in (2, 4)
            if counts[order[(1 << bits) - 1 :]].sum() <= outsiders * len(data)
        ]
        return (
            cls(sizes[0], order[: (1 << sizes[0]) - 1])
            if sizes and counts[order[0]] < len(data)
            else None
        )

    @property
    def outsider(self) -> int:
        """The code of an outsider."""
        return (1 << self.bits) - 1

    @property
    def digits(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits

    def pack(self, data: Bytes) -> tuple[Bytes, Bytes]:
        """The codes, the first in a byte's lowest bits, and the outsiders in order."""
        table = np.full(256, self.outsider, np.uint8)
        table[self.values] = np.arange(self.outsider)
        padded = (
            data.tobytes()
            .translate(table.tobytes())
            .ljust(-(-len(data) // self.digits) * self.digits, b"\0")
        )
        codes = np.frombuffer(padded, np.uint8)
        rows = codes.view(f"u{self.digits}")  # the codes of a byte as one number, eight bits apart
        packed = rows.astype(np.uint8)
        for digit in range(1, self.digits):
            packed |= (rows >> (8 - self.bits) * digit).astype(np.uint8)
        return packed, data[codes[: len(data)] == self.outsider]

    def unpack(self, packed: Bytes, outsiders: Bytes, length: int) -> Bytes | None:
        """The inverse of `pack`; None if the number of outsiders is wrong."""
        codes = (
            np.arange(256, dtype=np.uint8)[:, None] >> np.arange(0, 8, self.bits, dtype=np.uint8)
            & self.outsider
        )
        data = _look_up(np.append(self.values, np.uint8(0))[codes], packed)[:length]
        if len(outsiders):
            outside = codes == self.outsider
            hit = np.flatnonzero(
                np.frombuffer(packed.tobytes().translate(outside.any(axis=1).tobytes()), bool)
            )
            row, digit = np.nonzero(outside[packed[hit]])
            places = hit[row] * self.digits + digit
            if len(places) != len(outsiders) or places[-1] >= length:
                return None
            data[places] = outsiders
        return data


def _look_up(table: NDArray[np.generic], packed: Bytes) -> Bytes:
    """Rows of a table of 256 rows, each row taken as one number; in blocks, because numpy makes every index eight bytes."""
    rows = table.view(f"u{table.shape[1]}").reshape(-1)
    found = np.empty(len(packed), rows.dtype)
    for at in range(0, len(packed), _BLOCK):
        np.take(rows, packed[at : at + _BLOCK], out=found[at : at + _BLOCK], mode="clip")
    return found.view(np.uint8)
