"""Tests the decoder on damaged, truncated and hostile blobs.

The decoder must refuse a blob or return the right shape, without allocating more memory than the
blob's content can fill.
"""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from awares_platform.weights.codec import decode, encode, kind, sparse
from awares_platform.weights.codec.alphabet import Alphabet
from awares_platform.weights.codec.stream import Cursor, number
from awares_platform.weights.manifest import WeightsError
from tests.unit.awares_platform.weights.tensors import BF16, moved, weights


def samples() -> list[tuple[Tensor | None, bytes]]:
    base = weights(900).reshape(30, 30)
    step = [
        encode(base, moved(base, share, step))
        for share, step in ((0.05, 3), (0.02, 1), (1.0, 2), (0.6, 1))
    ]
    flipped = encode(base.view(torch.int16), base.view(torch.int16) ^ 0x0410)
    repeated = encode(None, torch.full((4000,), 2.0))
    far = torch.zeros(6000, dtype=torch.int16)
    far[[5, 5500]] = torch.tensor([1, 9], dtype=torch.int16)
    return [
        *[(base, blob) for blob in step],
        (base.view(torch.int16), flipped),
        (None, encode(None, base)),
        (None, repeated),
        (torch.zeros_like(far), encode(torch.zeros_like(far), far)),
    ]


def survives(base: Tensor | None, blob: bytes) -> bool:
    """Return True if the blob can be decoded, and False if the decoder raises WeightsError.

    The test fails for any other exception, and for a result with another dtype or shape than
    `base`.
    """
    try:
        result = decode(base, blob)
        kind(blob)
    except WeightsError:
        return False
    assert base is None or (result.dtype, result.shape) == (base.dtype, base.shape)
    return True


def test_the_samples_cover_every_kind() -> None:
    assert {kind(blob) for _, blob in samples()} == {"ulp", "steps", "xor", "dense"}
    assert all(survives(base, blob) for base, blob in samples())


def test_a_truncated_blob_is_refused() -> None:
    for base, blob in samples():
        assert not any(survives(base, blob[:length]) for length in range(1, len(blob)))
        assert not survives(base, blob + b"\0")


def test_a_flipped_byte_is_refused_or_harmless() -> None:
    for base, blob in samples():
        for at in range(len(blob)):
            for flip in (1, 0x40, 0x80, 0xFF):
                survives(base, blob[:at] + bytes([blob[at] ^ flip]) + blob[at + 1 :])


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(0, 7))
def test_garbage_is_refused_or_harmless(tail: bytes, which: int) -> None:
    base, blob = samples()[which]
    for kept in (0, 3, 6, 10):
        survives(base, blob[:kept] + tail)


def test_no_word_is_written_beyond_the_end() -> None:
    """Check that the decoder refuses damaged streams, and writes only to the first 100 words.

    The gap of a change is the number of unchanged words before the changed word. The move is a code
    for the number of steps by which the word changes.
    """
    words = np.zeros(200, np.int16)
    for streams in (
        [2, 8, 63, 40, 0, 0, 0],  # The second change is at word 104, beyond the end.
        [1, 4, 192, 1, 4, 2, 0, 0],  # The change is at word 128, beyond the end.
        [1, 4, 192, 1, 4, 0, 1, *[4, 255] * 2, 0],  # The gap is as large as possible.
        # The stream declares 101 changes, but the tensor has only 100 words.
        [101, 101 * 4 & 127 | 128, 101 * 4 >> 7, *[0] * 101, 0, 0, 0],
        [1, 4, 128, 0, 0, 0],  # A step is missing.
        [1, 4, 0, 0, 0, 1, *[4, 6], *[4, 0]],  # There is one step too many.
        [1, 4, 192, 0, 0, 0],  # A wide gap is missing.
        [1, 4, 0, 1, 4, 3, 0, 0],  # There is one wide gap too many.
        # The wide gap has the invalid move 3. Valid moves are 0, 1 and 2.
        [1, 4, 192, 1, 4, 193, 0, 1, *[4, 6], *[4, 0]],
    ):
        with pytest.raises(WeightsError, match="damaged"):
            sparse.decode(BF16, Cursor(memoryview(bytes(streams))), words[:100])
        assert not words[100:].any()


@given(st.sampled_from([2, 4]), st.binary(min_size=1, max_size=40), st.data())
def test_codes_and_outsiders_must_agree(bits: int, content: bytes, drawn: st.DataObject) -> None:
    """Check that the decoder refuses one missing or surplus outsider.

    An outsider is a byte that the alphabet does not contain.
    """
    alphabet = Alphabet(bits, np.arange((1 << bits) - 1, dtype=np.uint8))
    data = np.frombuffer(content, np.uint8)
    packed, outsiders = alphabet.pack(data)
    found = alphabet.unpack(packed, outsiders, len(data))
    assert found is not None and np.array_equal(found, data)
    at = drawn.draw(st.integers(0, len(data) - 1))
    other = data.copy()
    other[at] = 255 if data[at] < alphabet.outsider else 0
    packed, _ = alphabet.pack(other)
    assert alphabet.unpack(packed, outsiders, len(data)) is None


def test_lengths_are_checked_before_anything_is_allocated() -> None:
    huge = [1, 0, 2, *number(2**40), *number(2**15)]
    for blob in (
        bytes([1, 0, 1, *number(2**59), 4, 0]),
        bytes(huge),
        bytes([*huge, 4, 1, 0] * 3),
        bytes([1, 0, 3, *number(2**40) * 3]),
        bytes([1, 0, 2, 0, *number(2**62)]),
        bytes([1, 0, 1, *number(2**20), 4, 4, 0, 0, 0, 0]),
    ):
        with pytest.raises(WeightsError):
            decode(None, blob)


def test_a_frame_of_another_length_is_refused() -> None:
    frame = pa.Codec("zstd").compress(bytes(50), asbytes=True)
    for count in (49, 51):
        streams = bytes([len(frame) << 2 | 1]) + frame
        with pytest.raises(WeightsError, match="damaged"):
            decode(None, bytes([1, 13, 1, count, 4, len(streams)]) + streams)
