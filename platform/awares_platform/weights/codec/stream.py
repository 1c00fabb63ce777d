"""Reads and writes the numbers, byte streams and words of a blob.

A byte stream is raw, compressed with zstd, or packed (alphabet.py). Words are written as byte
planes: one stream for each byte of a word.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from awares_platform.weights.codec.alphabet import Alphabet
from awares_platform.weights.codec.words import Bytes, Words
from awares_platform.weights.manifest import WeightsError

# Level 1 suffices: higher levels search longer for matches, which these streams hardly contain.
_ZSTD = pa.Codec("zstd", compression_level=1)
_NUMBER_BYTES = 9
"""Maximum number of bytes of a LEB128 number. Nine bytes hold 63 bits."""
_RAW, _COMPRESSED, _NIBBLES, _CRUMBS = range(4)
"""The number that stands for each layout in a blob."""
_BITS = {_NIBBLES: 4, _CRUMBS: 2}
_FRAME = 12
"""Number of bytes that zstd adds to every stream."""
_SHORT = 512
"""Streams with fewer bytes are not packed into codes."""
_PROBE = 1 << 12
"""Number of bytes from the middle of a long stream on which `pack` compares the layouts."""
_OUTSIDERS = 1 / 16
"""`pack` tries codes only if at most this share of the bytes would have no code."""

Parts = list[bytes | memoryview]
"""Consecutive byte strings that the caller joins."""


class Cursor:
    """Reads a blob from left to right. Raises WeightsError if the blob ends early.

    Example:
        Cursor(memoryview(b"\\x07abc")).number()  # 7
    """

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> memoryview:
        """Return the next `length` bytes without copying them."""
        if length > len(self.data) - self.at:
            raise WeightsError(
                f"encoded tensor is truncated: {length} bytes wanted at {self.at} of "
                f"{len(self.data)}"
            )
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self) -> int:
        """Read the next unsigned LEB128 number, which is below 2 ** 63."""
        value = 0
        for place in range(_NUMBER_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value
        raise WeightsError(f"encoded tensor is damaged: no number at {self.at - _NUMBER_BYTES}")

    def end(self) -> None:
        """Raise WeightsError unless all bytes were read."""
        if self.at != len(self.data):
            raise WeightsError(
                f"encoded tensor is damaged: {len(self.data) - self.at} bytes too many"
            )


def number(value: int) -> bytes:
    """Encode `value` as unsigned LEB128.

    A byte holds seven bits of the value, and the lowest bits come first. The top bit of a byte is
    set if another byte follows.
    """
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def size(parts: Parts) -> int:
    """Return the total number of bytes of the parts."""
    return sum(map(len, parts))


def pack(data: Bytes) -> Parts:
    """Encode bytes as a stream: the encoded length and the layout, then the encoded bytes.

    The layout is the one that needs the fewest bytes for the middle of the stream.
    """
    middle = data[max(0, len(data) - _PROBE) // 2 :][:_PROBE]
    alphabet = Alphabet.of(middle, _OUTSIDERS) if len(data) >= _SHORT else None
    if alphabet is None:
        return _pack_plain(data)
    whole = len(middle) == len(data)
    coded, plain = _pack_codes(middle, alphabet), _pack_plain(middle)
    if size(coded) >= size(plain):
        return plain if whole else _pack_plain(data)
    coded = coded if whole else _pack_codes(data, alphabet)
    return coded if size(coded) < len(data) else _pack_plain(data)


def unpack(cursor: Cursor, length: int) -> Bytes:
    """Decode the next stream into `length` bytes. The result may be read-only.

    The function allocates `length` bytes, so the caller must check `length` first.
    """
    stored, layout = divmod(cursor.number(), 4)
    body = cursor.take(stored)
    if layout in _BITS:
        return _unpack_codes(Cursor(body), length, _BITS[layout])
    return _unpack_plain(body, length, layout)


def pack_planes(words: Words) -> Parts:
    """Encode words as one stream per byte of a word. The stream of the lowest bytes comes first.

    Separate streams compress better, because similar bytes stand together: the exponents of floats,
    and the zero bytes of small numbers.
    """
    return [
        part
        for place in range(words.itemsize)
        for part in pack((words >> 8 * place).astype(np.uint8))
    ]


def unpack_planes(cursor: Cursor, words: Words) -> None:
    """Decode the next streams, one per byte of a word, into `words`."""
    planes = words.view(np.uint8).reshape(-1, words.itemsize)
    for place in range(words.itemsize):
        planes[:, place] = unpack(cursor, len(words))


def pack_words(words: Words) -> Parts:
    """Encode the number of words, then the words in byte planes."""
    return [number(len(words)), *(pack_planes(words) if len(words) else ())]


def unpack_words(cursor: Cursor, most: int, dtype: DTypeLike) -> np.ndarray:
    """Decode the result of `pack_words`. Raises WeightsError for more than `most` words."""
    count = cursor.number()
    if count > most:
        raise WeightsError(f"encoded tensor is damaged: {count} words where {most} are possible")
    words = np.empty(count, dtype)
    if count:
        unpack_planes(cursor, words)
    return words


def _pack_plain(data: Bytes) -> Parts:
    if len(data) > _FRAME:
        # Ask for bytes, because the memoryview of a pyarrow buffer includes unused capacity.
        body = _ZSTD.compress(data, asbytes=True)
        if len(body) < len(data):
            return [number(len(body) << 2 | _COMPRESSED), body]
    return [number(len(data) << 2 | _RAW), data.data]


def _unpack_plain(body: memoryview, length: int, layout: int) -> Bytes:
    if layout == _RAW:
        if len(body) != length:
            raise WeightsError(
                f"encoded tensor is damaged: a stream of {len(body)} bytes for {length}"
            )
        return np.frombuffer(body, np.uint8)
    try:
        return np.frombuffer(_ZSTD.decompress(pa.py_buffer(body), length), np.uint8)
    except (OSError, ValueError) as error:
        raise WeightsError(f"encoded tensor is damaged: {error}") from error


def _pack_codes(data: Bytes, alphabet: Alphabet) -> Parts:
    packed, outsiders = alphabet.pack(data)
    body = [
        alphabet.values.tobytes(),
        *_pack_plain(packed),
        number(len(outsiders)),
        *_pack_plain(outsiders),
    ]
    layout = _NIBBLES if alphabet.bits == 4 else _CRUMBS
    return [number(size(body) << 2 | layout), *body]


def _unpack_codes(body: Cursor, length: int, bits: int) -> Bytes:
    alphabet = Alphabet(bits, np.frombuffer(body.take((1 << bits) - 1), np.uint8))
    packed = _next_plain(body, -(-length // alphabet.digits))
    outsiders = _next_plain(body, min(body.number(), length))
    body.end()
    data = alphabet.unpack(packed, outsiders, length)
    if data is None:
        raise WeightsError(
            f"encoded tensor is damaged: {len(outsiders)} bytes outside its alphabet"
        )
    return data


def _next_plain(body: Cursor, length: int) -> Bytes:
    stored, layout = divmod(body.number(), 4)
    if layout in _BITS:
        raise WeightsError("encoded tensor is damaged: a stream of codes is encoded as codes again")
    return _unpack_plain(body.take(stored), length, layout)
