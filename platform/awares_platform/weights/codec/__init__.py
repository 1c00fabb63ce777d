"""The codec of the weight bus: a lossless encoding of one tensor, alone or as a delta to a base.

    blob = encode(base, new)        # learner: choose the smallest kind for each span of the tensor
    new = decode(base, blob)        # reader: the same bits

A tensor's elements are read as words, signed integers of the element's size (words.py). A span is
4 MiB of words and has one of five kinds:

    same   nothing changed; no bytes
    ulp    the positions of the few changed words, and the number of steps that each moved;
           one step is the distance to the next representable value (sparse.py)
    steps  the number of steps of every word, in byte planes
    xor    the bits of every word that differ, in byte planes
    dense  the words themselves, in byte planes; needs no base

A byte plane holds one byte of every word. Each byte stream is raw or zstd; if few byte values are
frequent, two or four of them are first packed into one byte (alphabet.py). A blob is

    format 1 | dtype | number of axes | each axis | for each span: kind, length, streams

where a field is one byte or a LEB128 number. A blob is at most a few bytes larger than the tensor:
3 bytes, 9 for each axis, and for each span 5 bytes and 4 for each byte of the dtype. That is 13
bytes for 4 MiB of bfloat16.

The caller must verify the decoded tensor by its hash in the manifest. A delta that is applied to
another base of the same shape decodes without an error, to a wrong tensor.
"""

from torch import Tensor

from awares_platform.weights.codec import blob as _blob

__all__ = ["decode", "encode", "kind"]


def encode(base: Tensor | None, new: Tensor, *, threads: int = 1) -> bytes:
    """Encode `new` as a delta to `base`, or alone if `base` is None; b"" if nothing changed.

    Both are CPU tensors in any layout. The bytes do not depend on `threads`. Memory: the blob
    twice, 32 MiB per thread, and a copy of each tensor that is not contiguous. Raises ValueError
    if the dtypes or shapes differ, or if no checkpoint has the dtype.
    """
    return _blob.encode(base, new, threads)


def decode(
    base: Tensor | None, blob: bytes | memoryview, *, out: Tensor | None = None, threads: int = 1
) -> Tensor:
    """Decode a blob of `encode` into a contiguous tensor: `out`, or a new one without it.

    `out` may be `base`, but must not overlap it in part. Memory: 32 MiB per thread and a copy of
    a base that is not contiguous. Raises WeightsError for a damaged blob, a blob of another dtype
    or shape, and a delta without a base. The content of `out` is then undefined.
    """
    return _blob.decode(base, blob, out, threads)


def kind(blob: bytes | memoryview) -> str:
    """The kind of most of the blob's bytes. Raises WeightsError for bytes that are not a blob."""
    return _blob.Blob.parse(blob).kind if len(blob) else "same"
