"""Tests the exact bytes of small blobs, round trips of all dtypes, and the choice of encoding."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from awares_platform.weights.codec import decode, encode, kind, span
from awares_platform.weights.codec.alphabet import Alphabet
from awares_platform.weights.codec.stream import Cursor, number
from awares_platform.weights.codec.words import WordType, unzigzag, zigzag
from awares_platform.weights.manifest import WeightsError
from tests.unit.awares_platform.weights.tensors import bits, moved, of_bits, same, weights

FLOATS = [
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e8m0fnu,
]
INTEGERS = [
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
]
SHAPES = [(), (0,), (1,), (7,), (3, 5), (0, 4), (2, 3, 4), (300,), (40, 61)]


# Tests of exact bytes


def test_an_unchanged_tensor_is_no_bytes() -> None:
    base = torch.tensor([1.0, float("nan"), -0.0])
    assert encode(base, base.clone()) == b""
    assert kind(b"") == "same"
    result = decode(base, b"")
    assert same(result, base) and result.data_ptr() != base.data_ptr()


def test_a_dense_blob_byte_by_byte() -> None:
    blob = encode(None, torch.tensor([[0x0201, 0x0403, 0x0605]], dtype=torch.int16))
    # The header contains format 1, dtype 10 (int16), the number of axes, and their lengths 1 and 3.
    header = [1, 10, 2, 1, 3]
    # The low bytes and the high bytes are two raw streams of three bytes each. A stream begins with
    # its length, shifted by two bits.
    low, high = [3 << 2, 1, 3, 5], [3 << 2, 2, 4, 6]
    # The code 4 means "dense". The two streams with their lengths have 8 bytes in total.
    assert [*blob] == [*header, 4, 8, *low, *high]
    assert kind(blob) == "dense"


def test_a_sparse_blob_byte_by_byte() -> None:
    base = torch.zeros(400, dtype=torch.uint8)
    new = base.clone()
    new[2], new[3], new[8], new[120] = 1, 255, 7, 1
    blob = encode(base, new)
    up_after_two, down_at_once, other_after_four = 2, 1 << 6 | 0, 2 << 6 | 4
    changes = [up_after_two, down_at_once, other_after_four, 3 << 6 | 111 % 64]
    wide_gaps, far_gaps, other_steps = [1, 1 << 2, 111 // 64], [0], [1, 1 << 2, 14]
    streams = [4, 4 << 2, *changes, *wide_gaps, *far_gaps, *other_steps]
    assert [*blob] == [1, 13, 1, 400 % 128 | 128, 400 // 128, 1, len(streams), *streams]
    assert kind(blob) == "ulp"
    assert same(decode(base, blob), new)


def test_a_far_gap_continues_a_wide_gap() -> None:
    base = torch.zeros(6000, dtype=torch.int8)
    new = base.clone()
    new[5000] = -1
    streams = [1, 4, 3 << 6 | 5000 % 64, 1, 4, 1 << 6, 1, *[4, 5000 // 64, 4, 0], 0]
    assert [*encode(base, new)][-len(streams) :] == streams


def test_neighbouring_floats_are_one_step_apart() -> None:
    values = torch.tensor([-1e-40, -0.0, 0.0, 1e-40, 1.0, float("inf")])
    words = WordType.of(torch.float32)
    ordered = words.ordered(words.words(values))
    assert [*ordered[1:3]] == [-1, 0]
    assert [*ordered] == sorted(ordered)
    up = torch.nextafter(values[:-1], torch.tensor(float("inf")))
    steps = words.steps(words.words(values[:-1]), words.words(up))
    # The codec counts -0.0 and 0.0 as two numbers, unlike nextafter. It therefore counts two steps
    # from -0.0 to the next number above zero.
    assert [*steps] == [1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.float16, torch.bfloat16]
)
def test_steps_are_exact_between_any_two_bit_patterns(dtype: torch.dtype) -> None:
    words = WordType.of(dtype)
    every = np.arange(1 << 8 * words.size).astype(f"u{words.size}").view(f"i{words.size}")
    assert len(np.unique(words.ordered(every))) == len(every)
    for shift in (1, 3, 100, len(every) // 2):
        new = np.roll(every, shift)
        assert np.array_equal(words.step(every, words.steps(every, new)), new)
        assert np.array_equal(unzigzag(zigzag(new)), new)
        assert np.array_equal(words.exponent_last(words.exponent_first(new)), new)


def test_small_steps_have_small_zigzag_numbers() -> None:
    numbers = zigzag(np.array([0, -1, 1, -2, 2, 127, -128], np.int8)).view(np.uint8)
    assert [*numbers] == [0, 1, 2, 3, 4, 254, 255]


def test_an_alphabet_packs_four_or_two_codes_into_a_byte() -> None:
    data = np.array([5, 5, 5, 9, 9, 7, 200, 5, 9], np.uint8)
    alphabet, nibbles = Alphabet.of(data, 1 / 9), Alphabet.of(data, 0.1)
    assert alphabet and [*alphabet.values] == [5, 9, 7]
    assert nibbles and nibbles.bits == 4
    assert Alphabet.of(np.arange(100, dtype=np.uint8), 0.1) is None
    packed, others = alphabet.pack(data)
    assert [*packed] == [0 | 0 << 2 | 0 << 4 | 1 << 6, 1 | 2 << 2 | 3 << 4 | 0 << 6, 1]
    assert [*others] == [200]
    assert np.array_equal(alphabet.unpack(packed, others, 9), data)
    assert alphabet.unpack(packed, np.zeros(2, np.uint8), 9) is None
    packed, others = nibbles.pack(data)
    assert [*packed] == [0, 1 << 4, 1 | 2 << 4, 3 | 0 << 4, 1] and not len(others)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), min_size=15, max_size=300), st.sampled_from([2, 4]))
def test_every_alphabet_is_exact(values: list[int], bits: int) -> None:
    data = np.array(values, np.uint8)
    alphabet = Alphabet(bits, data[: 2**bits - 1])
    assert np.array_equal(alphabet.unpack(*alphabet.pack(data), len(data)), data)


def test_numbers_are_leb128() -> None:
    assert number(127) == b"\x7f" and number(300) == b"\xac\x02"
    for value in (0, 1, 127, 128, 300, 2**62):
        assert Cursor(memoryview(number(value))).number() == value
    with pytest.raises(WeightsError, match="no number"):
        Cursor(memoryview(b"\xff" * 12)).number()


# Tests that encode a tensor, decode the blob, and compare the two tensors

ZEROS_NANS_INFINITY = b"\x00\x80\xff\x7f\xff\xff\x80\x7f"
PATTERNS = st.sampled_from(["none", "one", "few", "half", "all", "random bits", "unrelated"])


def changed(base: Tensor, pattern: str, random: np.random.Generator) -> Tensor:
    raw = np.frombuffer(bits(base), np.uint8).copy().reshape(base.numel(), base.element_size())
    counts = {"none": 0, "one": 1, "few": len(raw) // 40, "half": len(raw) // 2}
    count = counts.get(pattern, len(raw))
    hit = random.choice(len(raw), min(count, len(raw)), replace=False)
    if pattern == "random bits":
        raw ^= (1 << random.integers(0, 8, raw.shape)).astype(np.uint8)
    elif pattern == "unrelated":
        raw = random.integers(0, 256, raw.shape).astype(np.uint8)
    else:
        raw[hit, 0] += random.choice(np.array([1, 255, 5], np.uint8), len(hit))
    return of_bits(raw.reshape(-1), base.dtype, tuple(base.shape))


@settings(deadline=None)
@given(st.sampled_from(FLOATS + INTEGERS), st.sampled_from(SHAPES), PATTERNS, st.integers(0, 2**32))
def test_every_tensor_comes_back_bit_for_bit(
    dtype: torch.dtype, shape: tuple[int, ...], pattern: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    size = int(np.prod(shape)) * dtype.itemsize
    base = of_bits(random.integers(0, 256, size).astype(np.uint8), dtype, shape)
    new = changed(base, pattern, random)
    blob = encode(base, new)
    assert (blob == b"") == (bits(base) == bits(new))
    assert same(decode(base, blob), new)
    assert same(decode(None, encode(None, new)), new)
    for encoded in (blob, encode(None, new)):
        assert len(encoded) <= size + 3 + 9 * len(shape) + 5 + 4 * dtype.itemsize


@settings(deadline=None)
@given(
    st.binary(max_size=240),
    st.binary(max_size=240),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
@example(ZEROS_NANS_INFINITY, b"\x00\x00\xff\xff\x01\x00\x81\xff", torch.bfloat16)
def test_raw_bit_patterns_come_back(left: bytes, right: bytes, dtype: torch.dtype) -> None:
    size = min(len(left), len(right)) // 8 * 8
    base, new = (of_bits(np.frombuffer(data[:size], np.uint8), dtype) for data in (left, right))
    assert same(decode(base, encode(base, new)), new)


@pytest.mark.parametrize("share", [0.0002, 0.004, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("step", [1, 3, 4000])
def test_large_tensors_come_back(share: float, step: int) -> None:
    base = weights(3_000_001)
    new = moved(base, share, step)
    blob = encode(base, new)
    assert same(decode(base, blob), new)
    assert len(blob) < base.nbytes


@pytest.mark.parametrize("name", ["ulp", "steps", "xor", "dense"])
@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float32, torch.float64, torch.int64]
)
def test_every_kind_is_exact_for_unrelated_words(name: str, dtype: torch.dtype) -> None:
    random = np.random.default_rng(3)
    words = WordType.of(dtype)
    base, new = (
        random.integers(0, 256, 999 * words.size).astype(np.uint8).view(f"i{words.size}")
        for _ in range(2)
    )
    streams = b"".join(span.ENCODERS[name](words, base, new))
    out = np.empty_like(new)
    span.decode(words, name, memoryview(streams), base, out)
    assert np.array_equal(out, new)


def test_views_are_encoded_as_their_values() -> None:
    base, new = weights(6000).reshape(60, 100), moved(weights(6000), 0.02).reshape(60, 100)
    blob = encode(base.t(), new.t())
    assert blob == encode(base.t().contiguous(), new.t().contiguous())
    assert same(decode(base.t(), blob), new.t().contiguous())
    assert same(decode(base[::2], encode(base[::2], new[::2])), new[::2])
    assert same(decode(base.t(), b""), base.t())
    assert decode(base.t(), b"").is_contiguous()


def test_threads_give_the_same_bytes() -> None:
    base = weights(5_000_000)
    new = moved(base, 0.03)
    blob = encode(base, new)
    assert encode(base, new, threads=3) == blob
    assert same(decode(base, blob, threads=3), new)
    assert same(decode(None, encode(None, new, threads=2), threads=2), new)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_the_most_compressible_tensor_is_not_taken_for_damage(dtype: torch.dtype) -> None:
    new = torch.zeros(2 * span.BYTES // dtype.itemsize, dtype=dtype)
    blob = encode(None, new)
    assert len(blob) < new.nbytes / 20_000
    assert same(decode(None, blob), new)
    # The encoder chooses the layout of a byte stream from the middle of the stream. Each block of 4
    # MiB has its own streams, so change the middle of the first block.
    new[len(new) // 4 - 2048 : len(new) // 4 + 2048 : 16] = 1
    assert same(decode(None, encode(None, new)), new)


def test_parameters_are_encoded_too() -> None:
    base = torch.nn.Parameter(torch.ones(4))
    new = torch.nn.Parameter(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    assert same(decode(base, encode(base, new)), new.detach())


# Tests of the encoding that the encoder chooses


@pytest.mark.parametrize(
    ("share", "step", "name", "most"),
    [
        (0.012, 1, "ulp", 0.0068),
        (0.033, 1, "ulp", 0.0155),
        (0.081, 1, "ulp", 0.0311),
        (0.5, 1, "steps", 0.0945),
        (1.0, 1, "steps", 0.0630),
        (0.012, 40, "ulp", 0.0112),
        (1.0, 40, "steps", 0.45),
    ],
)
def test_a_weight_update_takes_few_bytes(share: float, step: int, name: str, most: float) -> None:
    base = weights(2_000_000)
    blob = encode(base, moved(base, share, step))
    assert kind(blob) == name
    assert len(blob) < most * base.nbytes


def test_unrelated_values_are_dense() -> None:
    base, new = weights(100_000), weights(100_000, seed=2)
    assert kind(encode(base, new)) == "dense"
    # The exponents of the weights compress well, but the mantissas do not.
    assert len(encode(base, new)) < 0.67 * base.nbytes


def test_flipped_bits_are_xor() -> None:
    base = of_bits(np.random.default_rng(0).integers(0, 256, 80_000).astype(np.uint8), torch.int32)
    assert kind(encode(base, base ^ 0x00800400)) == "xor"


def test_repeated_values_are_dense_even_if_few_changed() -> None:
    new = torch.zeros(100_000, dtype=torch.bfloat16)
    base = moved(new, 0.05, 3000)
    assert kind(encode(base, new)) == "dense"
    assert len(encode(base, new)) < 64


def test_a_misleading_sample_costs_no_more_than_dense() -> None:
    base = torch.zeros(2_000_000, dtype=torch.int16)
    seeded = torch.Generator().manual_seed(0)
    new = torch.randint(-(2**15), 2**15, base.shape, generator=seeded, dtype=torch.int16)
    for start in np.linspace(0, len(new) - 512, 8, dtype=np.int64):
        new[start : start + 512] = 0
    assert len(encode(base, new)) <= new.nbytes + 3 + 9 + 13


def test_each_span_of_a_tensor_has_its_own_kind() -> None:
    base = weights(3 * (span.BYTES // 2))
    new = base.clone()
    new[: span.BYTES // 2] = moved(base[: span.BYTES // 2], 0.01)
    new[span.BYTES :] = weights(span.BYTES // 2, seed=5)
    blob = encode(base, new)
    assert kind(blob) == "dense"
    assert len(blob) < 0.75 * span.BYTES
    assert same(decode(base, blob), new)


# Tests of tensors that do not fit their base or cannot be encoded


def test_the_encoder_names_both_tensors_if_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"bfloat16 \(2, 3\) and float32 \(3, 2\)"):
        encode(torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="complex64 cannot be encoded"):
        encode(None, torch.zeros(2, dtype=torch.complex64))


def test_a_delta_needs_its_base() -> None:
    base = weights(1000)
    blob = encode(base, moved(base, 0.05))
    with pytest.raises(WeightsError, match=r"a delta \(ulp\) of bfloat16 \(1000,\) needs its base"):
        decode(None, blob)
    with pytest.raises(WeightsError, match="unchanged .* without its base"):
        decode(None, b"")
    with pytest.raises(WeightsError, match=r"bfloat16 \(1000,\) does not fit float16 \(1000,\)"):
        decode(base.half(), blob)
    with pytest.raises(WeightsError, match=r"does not fit bfloat16 \(10, 100\)"):
        decode(base.reshape(10, 100), blob)


def test_out_is_filled_and_returned() -> None:
    base = weights(5000)
    for share in (0.0, 0.03, 1.0):
        new = moved(base, share, 3)
        for given_base, blob in ((base, encode(base, new)), (None, encode(None, new))):
            out = torch.zeros_like(base)
            assert decode(given_base, blob, out=out) is out
            assert same(out, new)
        out = base.clone()
        assert same(decode(out, encode(base, new), out=out), new)


def test_out_must_fit() -> None:
    base = weights(600)
    for blob in (b"", encode(base, moved(base, 0.1))):
        with pytest.raises(WeightsError, match=r"does not fit float32 \(600,\)"):
            decode(base, blob, out=torch.zeros(600))
        with pytest.raises(ValueError, match="contiguous"):
            decode(base, blob, out=torch.zeros(1200, dtype=torch.bfloat16)[::2])
