"""Byte streams of a blob: numbers, zstd or raw bytes, and words split into byte planes."""

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from awares_platform.weights.codec.words import Words
from awares_platform.weights.manifest import WeightsError

_ZSTD = pa.Codec("zstd", compression_level=1)  # higher levels spend time on matches, and these bytes hold none
_NUMBER_BYTES = 9  # 63 bits

Parts = list[bytes | memoryview]
"""Bytes still to be joined."""


class Cursor:
    """Reads a blob from left to right; raises WeightsError where it ends early.

    Example:
        Cursor(memoryview(b"\\x07abc")).number()  # 7
    """

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> memoryview:
        """The next `length` bytes, not copied."""
        if length > len(self.data) - self.at:
            raise WeightsError(f"encoded tensor is truncated: {length} bytes wanted at {self.at} of {len(self.data)}")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self) -> int:
        """One unsigned LEB128 number below 2 ** 63."""
        value = 0
        for place in range(_NUMBER_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value
        raise WeightsError(f"encoded tensor is damaged: no number at {self.at - _NUMBER_BYTES}")

    def end(self) -> None:
        """Raise WeightsError unless everything was read."""
        if self.at != len(self.data):
            raise WeightsError(f"encoded tensor is damaged: {len(self.data) - self.at} bytes too many")


def number(value: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, lowest first, the top bit says that more follow."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def pack(data: NDArray[np.uint8]) -> Parts:
    """A stream: its length and how it is stored, then the bytes by zstd, or raw where that is no larger."""
    body = _ZSTD.compress(data, asbytes=True)  # len(memoryview(a pyarrow buffer)) is the room that it once had
    if len(body) < len(data):
        return [number(len(body) << 1 | 1), body]
    return [number(len(data) << 1), data.data]


def unpack(cursor: Cursor, length: int) -> NDArray[np.uint8]:
    """The next stream, of `length` bytes: the caller has bounded them. Read-only."""
    stored, compressed = divmod(cursor.number(), 2)
    body = cursor.take(stored)
    if not compressed:
        if stored != length:
            raise WeightsError(f"encoded tensor is damaged: a stream of {stored} bytes for {length}")
        return np.frombuffer(body, np.uint8)
    try:
        return np.frombuffer(_ZSTD.decompress(pa.py_buffer(body), length), np.uint8)
    except (OSError, ValueError) as error:
        raise WeightsError(f"encoded tensor is damaged: {error}") from error


def pack_planes(words: Words) -> Parts:
    """One stream per byte of a word, the lowest first: exponents and the high bytes of small numbers compress apart."""
    return [part for place in range(words.itemsize) for part in pack((words >> 8 * place).astype(np.uint8))]


def unpack_planes(cursor: Cursor, words: Words) -> None:
    """Fill `words` from the next streams."""
    planes = words.view(np.uint8).reshape(-1, words.itemsize)
    for place in range(words.itemsize):
        planes[:, place] = unpack(cursor, len(words))


def pack_words(words: Words) -> Parts:
    """Words of a number that the reader does not know."""
    return [number(len(words)), *(pack_planes(words) if len(words) else ())]


def unpack_words(cursor: Cursor, most: int, dtype: DTypeLike) -> np.ndarray:
    """The words that `pack_words` packed; raises WeightsError if there are more than `most`."""
    count = cursor.number()
    if count > most:
        raise WeightsError(f"encoded tensor is damaged: {count} words where {most} are possible")
    words = np.empty(count, dtype)
    if count:
        unpack_planes(cursor, words)
    return words
