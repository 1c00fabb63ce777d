"""The codec of the weight bus: a lossless encoding of one tensor, alone or as a delta to a base.

    blob = encode(base, new)        # learner: encode the tensor `new` as a delta to `base`
    new = decode(base, blob)        # reader: restore the same bits

The codec reads a tensor's elements as words: signed integers of the element's size (words.py). It
cuts the words into spans of 4 MiB, and encodes each span in one of five ways, called kinds:

    same   No word changed. The span takes no bytes.
    ulp    The positions of the few changed words, and the number of steps by which each word moved.
           One step is the distance to the next representable value (sparse.py).
    steps  The number of steps of every word, in byte planes.
    xor    The XOR of every word with the same word of the base, in byte planes.
    dense  The words themselves, in byte planes. This kind needs no base.

A byte plane holds one byte of every word. Each plane is a byte stream, which is raw or compressed
with zstd. If most bytes of a stream have one of a few values, two or four bytes are first packed
into one byte (alphabet.py).

The encoding of a tensor is called a blob. A blob has this format:

    format 1 | dtype | number of axes | length of each axis | for each span: kind, length, streams

The lengths are LEB128 numbers. The format, the dtype, the number of axes and a kind take one byte.

A blob exceeds the size of its tensor by at most 3 bytes, 9 bytes per axis, and s bytes per span.
Here s is 5 + 4 * (bytes of the dtype), which is 13 for bfloat16.

The caller must verify the decoded tensor with the hash in the manifest. If a delta is decoded onto
a wrong base of the same shape, no error is raised, but the result is a wrong tensor.
"""

from torch import Tensor

from awares_platform.weights.codec import blob as _blob

__all__ = ["decode", "encode", "kind"]


def encode(base: Tensor | None, new: Tensor, *, threads: int = 1) -> bytes:
    """Encode `new` as a delta to `base`, or without a base if `base` is None.

    The result is b"" if `new` equals `base`. Raises ValueError if the dtypes or shapes differ, or
    if the dtype is not supported.
    """
    return _blob.encode(base, new, threads)


def decode(
    base: Tensor | None, blob: bytes | memoryview, *, out: Tensor | None = None, threads: int = 1
) -> Tensor:
    """Decode a result of `encode` into `out`, or into a new tensor if `out` is None.

    `out` must be contiguous, and may be `base` itself. Raises WeightsError if the blob is damaged
    or does not fit.
    """
    return _blob.decode(base, blob, out, threads)


def kind(blob: bytes | memoryview) -> str:
    """Return the kind of encoding that takes up the most bytes of the blob, such as "ulp".

    The result is "same" for an empty blob. Raises WeightsError if `blob` is not a result of
    `encode`.
    """
    return _blob.Blob.parse(blob).kind if len(blob) else "same"
