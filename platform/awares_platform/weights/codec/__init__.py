"""The codec of the weight bus: a lossless encoding of one tensor, alone or as a delta to a base.

    blob = encode(base, new)        # learner: encode the tensor `new` as a delta to `base`
    new = decode(base, blob)        # reader: restore the same bits

The codec reads a tensor's elements as integers, called words. It cuts the words into spans of 4
MiB, and encodes each span in one of five ways, called kinds (span.KINDS).

The result, called a blob, has this format:

    format 1 | dtype | number of axes | length of each axis | for each span: kind, length, streams

The lengths are LEB128 numbers. Callers verify the decoded tensor's hash, because a delta decodes
onto a wrong base without an error.
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
