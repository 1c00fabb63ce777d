"""Lossless deltas of tensors: what travels when a version is published as the difference from another.

    blob = encode(base, new)        # learner: the cheapest kind for this tensor
    new = decode(base, blob)        # engine: bit for bit

Kinds: "same" (no bytes), "ulp" (the few changed words, and how many representable values each moved), "steps" (the same for every word,
in byte planes), "xor" (byte planes of the bits that differ), "dense" (byte planes of the values; needs no base). Every byte stream is zstd,
of two or four values to a byte where few values are frequent, or raw where that is no larger. A blob is

    format 1 | dtype | axes | each axis | per span of 4 MiB: kind, length, streams

in single bytes and LEB128 numbers. It is never larger than the tensor's own bytes plus 3 + 9 per axis plus, for each span, 5 and 4 per
byte of the dtype: 13 bytes in 4 MiB of bfloat16.

Whoever decodes must verify the result (the manifest's blake3): a delta on the wrong base of the right shape decodes to something else.
"""

from torch import Tensor

from awares_platform.weights.codec import blob as _blob

__all__ = ["decode", "encode", "kind"]


def encode(base: Tensor | None, new: Tensor, *, threads: int = 1) -> bytes:
    """`new` as a difference from `base`, b"" if there is none; whole if `base` is None. The same bytes for any number of threads.

    CPU tensors, in any layout. Needs at most 32 MiB per thread beside the blob (held twice) and contiguous copies of other layouts. Raises
    ValueError if dtype or shape differ, or for a dtype that no checkpoint has.
    """
    return _blob.encode(base, new, threads)


def decode(
    base: Tensor | None, blob: bytes | memoryview, *, out: Tensor | None = None, threads: int = 1
) -> Tensor:
    """The tensor that `encode` was given, contiguous, in `out` if given; `out` may be `base`, but not a part of it.

    Needs at most 32 MiB per thread beside the result and a contiguous copy of a base in another layout. Raises WeightsError for a blob that
    is damaged or of another dtype or shape than `base` or `out` (what `out` holds is then undefined), and for a delta without a base.
    """
    return _blob.decode(base, blob, out, threads)


def kind(blob: bytes | memoryview) -> str:
    """The kind of most of the blob's bytes: spans of one tensor may differ. Raises WeightsError for no blob."""
    return _blob.Blob.parse(blob).kind if len(blob) else "same"
