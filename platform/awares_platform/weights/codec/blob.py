"""Encodes a tensor as a blob, and decodes a blob.

A blob is a header with dtype and shape, followed by the encoded spans. A span is 4 MiB of the
tensor.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from awares_platform.weights.codec import span
from awares_platform.weights.codec.stream import Cursor, Parts, number, size
from awares_platform.weights.codec.words import WordType
from awares_platform.weights.manifest import WeightsError
from awares_platform.weights.parallel import parallel_map

_FORMAT = 1
_MOST_DIMENSIONS = 64
"""The maximum number of axes of a torch tensor."""
_EXPANSION = 1 << 18
"""Upper bound of the number of decoded bytes per encoded byte.

A zstd block has at least three bytes and decodes to at most 128 KiB. Each decoded byte holds at
most four packed values. With this bound, `Blob.check` rejects a blob with an impossible shape
before `decode` allocates memory."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that is parsed but not decoded.

    Example:
        Blob(WordType.of(torch.bfloat16), (320, 128), (("ulp", memoryview(b"...")),), 1204)
    """

    word: WordType
    """The tensor's dtype."""
    shape: tuple[int, ...]
    """The tensor's shape."""
    spans: tuple[tuple[str, memoryview], ...]
    """The kind and the encoded bytes of each span."""
    size: int
    """The length of the blob in bytes."""

    @classmethod
    def parse(cls, data: bytes | memoryview) -> "Blob":
        """Parse a blob without copying it. Raises WeightsError if `data` is not a blob."""
        cursor = Cursor(memoryview(data).cast("B"))
        word, shape = _header(cursor)
        spans = tuple(_span(cursor) for _ in range(0, prod(shape) * word.size, span.BYTES))
        cursor.end()
        return cls(word, shape, spans, len(cursor.data))

    @property
    def kind(self) -> str:
        """The kind of encoding that takes up the most bytes, or "dense" if all spans are empty."""
        sizes = Counter({"dense": 0})
        for name, data in self.spans:
            sizes[name] += len(data)
        return max(sizes, key=lambda name: sizes[name])

    @property
    def delta(self) -> str | None:
        """The kind of the first span that needs a base, or None if no span needs a base."""
        return next((name for name, _ in self.spans if name != "dense"), None)

    def check(self, base: Tensor | None, out: Tensor | None) -> None:
        """Raise WeightsError if the blob cannot be decoded with `base` into `out`.

        The blob, `base` and `out` must have the same dtype and shape. Without `base`, the blob must
        not be impossibly small.
        """
        whole = named(self.word.dtype, self.shape)
        for given in (base, out):
            if given is not None and described(given) != whole:
                raise WeightsError(f"an encoded {whole} does not fit {described(given)}")
        if base is None and self.delta:
            raise WeightsError(f"a delta ({self.delta}) of {whole} needs its base")
        if base is None and prod(self.shape) * self.word.size > _EXPANSION * self.size:
            raise WeightsError(f"encoded tensor is damaged: {self.size} bytes cannot hold {whole}")


def encode(base: Tensor | None, new: Tensor, threads: int) -> bytes:
    """Encode a tensor. The docstring of the package's `encode` describes the arguments."""
    if base is not None and (base.dtype, base.shape) != (new.dtype, new.shape):
        raise ValueError(f"base and new must be alike, not {described(base)} and {described(new)}")
    word = WordType.of(new.dtype)
    old, now = None if base is None else word.words(base), word.words(new)
    spans = parallel_map(
        lambda at: span.encode(word, None if old is None else old[at], now[at]),
        _spans(now.size, word),
        threads,
    )
    if base is not None and all(name == "same" for name, _ in spans):
        return b""
    parts: Parts = [bytes([_FORMAT, word.code, new.ndim]), *map(number, new.shape)]
    for name, streams in spans:
        parts += [bytes([span.KINDS.index(name)]), number(size(streams)), *streams]
    return b"".join(parts)


def decode(
    base: Tensor | None, data: bytes | memoryview, out: Tensor | None, threads: int
) -> Tensor:
    """Decode a tensor. The docstring of the package's `decode` describes the arguments."""
    if out is not None and (out.device.type != "cpu" or not out.is_contiguous()):
        raise ValueError(
            f"out must be a contiguous CPU tensor, not strides {out.stride()} on {out.device}"
        )
    if not len(data):
        return _unchanged(base, out)
    blob = Blob.parse(data)
    blob.check(base, out)
    result = torch.empty(blob.shape, dtype=blob.word.dtype) if out is None else out
    old, now = None if base is None else blob.word.words(base), blob.word.words(result)

    def fill(job: tuple[slice, tuple[str, memoryview]]) -> None:
        at, (name, streams) = job
        span.decode(blob.word, name, streams, None if old is None else old[at], now[at])

    parallel_map(fill, zip(_spans(now.size, blob.word), blob.spans, strict=True), threads)
    return result


def named(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    """Return dtype and shape as text, such as "bfloat16 (320, 128)"."""
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"


def described(tensor: Tensor) -> str:
    """Return the tensor's dtype and shape as text."""
    return named(tensor.dtype, tensor.shape)


def _unchanged(base: Tensor | None, out: Tensor | None) -> Tensor:
    if base is None:
        raise WeightsError("an unchanged tensor cannot be decoded without its base")
    if out is not None and (out.dtype, out.shape) != (base.dtype, base.shape):
        raise WeightsError(f"an unchanged {described(base)} does not fit {described(out)}")
    result = torch.empty(base.shape, dtype=base.dtype) if out is None else out
    word = WordType.of(base.dtype)
    word.words(result)[:] = word.words(base)
    return result


def _header(cursor: Cursor) -> tuple[WordType, tuple[int, ...]]:
    version, code, axes = cursor.take(3)
    word = WordType.from_code(code)
    if version != _FORMAT or word is None or axes > _MOST_DIMENSIONS:
        raise WeightsError(
            f"no encoded tensor of format {_FORMAT}: it starts with {version}, {code}, {axes}"
        )
    shape = tuple(cursor.number() for _ in range(axes))
    if prod(max(axis, 1) for axis in shape) >= 1 << 60:
        raise WeightsError(f"encoded tensor is damaged: no tensor has shape {shape}")
    return word, shape


def _span(cursor: Cursor) -> tuple[str, memoryview]:
    kind = cursor.take(1)[0]
    if kind >= len(span.KINDS):
        raise WeightsError(f"encoded tensor is damaged: a span of kind {kind}")
    return span.KINDS[kind], cursor.take(cursor.number())


def _spans(count: int, word: WordType) -> list[slice]:
    length = span.BYTES // word.size
    return [slice(start, start + length) for start in range(0, count, length)]
