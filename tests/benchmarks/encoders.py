"""Wraps our codec and four simpler encodings of a weight delta in one interface."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from awares_platform.weights import codec
from awares_platform.weights.codec.words import WordType

Words = NDArray[np.uint16]

CHUNK = 1 << 21
"""The number of words that the simpler encodings compress at once, as many as in our codec."""

ZSTD = pa.Codec("zstd", compression_level=1)

BF16 = WordType.of(torch.bfloat16)


def pack(array: np.ndarray) -> bytes:
    return ZSTD.compress(array.view(np.uint8), asbytes=True)


def unpack(data: bytes, dtype: type, count: int) -> np.ndarray:
    return np.frombuffer(ZSTD.decompress(data, count * np.dtype(dtype).itemsize), dtype)


class Ours:
    """The codec with which this project publishes weight deltas."""

    name = "ours"

    def encode(self, base: Tensor, new: Tensor) -> Any:
        return codec.encode(base, new)

    def decode(self, base: Tensor, blob: Any, out: Tensor) -> None:
        codec.decode(base, blob, out=out)


class Chunked(Ours):
    """A simpler encoding in numpy. Like our codec, it works on chunks of limited size."""

    def chunk(self, base: Words, new: Words) -> tuple:
        raise NotImplementedError

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        raise NotImplementedError

    def encode(self, base: Tensor, new: Tensor) -> Any:
        old, now = BF16.words(base).view(np.uint16), BF16.words(new).view(np.uint16)
        spans = [slice(at, at + CHUNK) for at in range(0, len(now), CHUNK)]
        return [self.chunk(old[span], now[span]) for span in spans]

    def decode(self, base: Tensor, blob: Any, out: Tensor) -> None:
        old, now = BF16.words(base).view(np.uint16), BF16.words(out).view(np.uint16)
        for at, part in zip(range(0, len(now), CHUNK), blob, strict=True):
            self.unchunk(old[at : at + CHUNK], part, now[at : at + CHUNK])


class Xor(Chunked):
    name = "XOR, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        return (pack(base ^ new),)

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        np.bitwise_xor(base, unpack(blob[0], np.uint16, len(out)), out=out)


class Index(Chunked):
    name = "int32 index + bf16, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        changed = np.flatnonzero(base != new)
        return len(changed), pack(changed.astype(np.int32)), pack(new[changed])

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        count, changed, values = blob
        out[:] = base
        out[unpack(changed, np.int32, count)] = unpack(values, np.uint16, count)


class Gap(Chunked):
    name = "u16 gap + bf16, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        """Encode the gaps. A gap is the number of unchanged words between two changed words.

        A gap of 65,535 or more becomes several numbers. All but the last of them are 65,535.
        """
        changed = np.flatnonzero(base != new)
        gaps = np.diff(changed, prepend=-1) - 1
        ends = np.cumsum(gaps // 65535 + 1)
        escaped = np.full(ends[-1] if len(ends) else 0, 65535, np.uint16)
        escaped[ends - 1] = gaps % 65535
        return len(escaped), pack(escaped), len(changed), pack(new[changed])

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        length, gaps, count, values = blob
        out[:] = base
        gaps = unpack(gaps, np.uint16, length)
        positions = np.cumsum(gaps + (gaps != 65535), dtype=np.int64)[gaps != 65535] - 1
        out[positions] = unpack(values, np.uint16, count)


class Dense(Chunked):
    name = "dense, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        return (pack(new),)

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        out[:] = unpack(blob[0], np.uint16, len(out))


CODECS = (Ours(), Xor(), Index(), Gap(), Dense())
