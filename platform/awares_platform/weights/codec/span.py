"""Encodes and decodes a span, which is 4 MiB of a tensor's words.

The encoder estimates on samples which of the five kinds of encoding needs the fewest bytes.
"""

from collections.abc import Callable

import numpy as np

from awares_platform.weights.codec import sparse
from awares_platform.weights.codec.stream import Cursor, Parts, pack_planes, size, unpack_planes
from awares_platform.weights.codec.words import Words, WordType, unzigzag, zigzag
from awares_platform.weights.manifest import WeightsError

BYTES = 1 << 22
"""Number of bytes of a span. The last span of a tensor may be shorter."""
KINDS = ("same", "ulp", "steps", "xor", "dense")
"""The kinds of encoding of a span:

- same: No word changed. The span takes no bytes.
- ulp: The positions of the few changed words, and their steps (sparse.py).
- steps: The steps of every word. One step leads to the next representable value.
- xor: The XOR of every word with the same word of the base.
- dense: The words themselves. This kind needs no base.

A blob stores the index of a kind, so new kinds must come at the end.
"""
_SAMPLES, _SAMPLE = 8, 512
"""`encode` compares the kinds for a large span on 8 samples of 512 words each."""
_SPARSE = 1 / 8
"""Up to this share of changed words, "ulp" is usually smaller than the other kinds."""
_SLOW_PENALTY = 1.05
"""The comparison of kinds multiplies the size of the slow kind "ulp" by this factor.

It thus prefers a faster kind that needs up to 5 % more bytes than "ulp"."""

Encoder = Callable[[WordType, Words, Words], Parts]

ENCODERS: dict[str, Encoder] = {
    "ulp": sparse.encode,
    "steps": lambda word, base, new: pack_planes(zigzag(word.steps(base, new))),
    "xor": lambda word, base, new: pack_planes(base ^ new),
    "dense": lambda word, base, new: pack_planes(word.exponent_first(new)),
}


def encode(word: WordType, base: Words | None, new: Words) -> tuple[str, Parts]:
    """Choose the kind that probably needs the fewest bytes, and encode the words in this kind.

    Return the kind and the encoded streams. The streams are longer than the words by at most 4
    bytes per byte plane.
    """
    if base is None:
        return "dense", ENCODERS["dense"](word, new, new)
    name = _choose(word, base, new)
    parts = ENCODERS[name](word, base, new)
    if name != "dense" and size(parts) > new.nbytes // 2:  # The samples may mislead `_choose`.
        dense = ENCODERS["dense"](word, base, new)
        return min((name, parts), ("dense", dense), key=lambda encoded: size(encoded[1]))
    return (name, parts) if parts else ("same", [])


def decode(word: WordType, name: str, data: memoryview, base: Words | None, out: Words) -> None:
    """Decode one span from `data` into `out`. `name` is the span's kind, such as "dense" or "ulp".

    `base` holds the base tensor's words, or is None. Raises WeightsError if `data` is damaged or a
    needed base is missing.
    """
    cursor = Cursor(data)
    if name == "dense":
        unpack_planes(cursor, out)
        out[:] = word.exponent_last(out)
    elif base is None:
        raise WeightsError(f"a delta ({name}) cannot be decoded without its base")
    elif name in ("same", "ulp"):
        if not np.may_share_memory(base, out):
            out[:] = base
        if name == "ulp":
            sparse.decode(word, cursor, out)
    else:
        delta = np.empty_like(out)
        unpack_planes(cursor, delta)
        out[:] = base ^ delta if name == "xor" else word.step(base, unzigzag(delta))
    cursor.end()


def _choose(word: WordType, base: Words, new: Words) -> str:
    """Return the kind that encodes samples of the span in the fewest bytes.

    If few words changed, and the span does not repeat many words, return "ulp" without a
    comparison.
    """
    old, now = _sample(base), _sample(new)
    changed = np.count_nonzero(old != now)
    if changed > _SPARSE * len(old):
        rivals = [*ENCODERS]
    elif changed and np.count_nonzero(now[1:] == now[:-1]) >= len(now) // 2:
        rivals = ["ulp", "dense"]
    else:
        return "ulp"
    costs: dict[str, float] = {name: size(ENCODERS[name](word, old, now)) for name in rivals}
    if len(old) < len(base) and "steps" in costs:
        costs["ulp"] *= _SLOW_PENALTY
    return min(costs, key=lambda name: costs[name])


def _sample(words: Words) -> Words:
    """Return all words of a small span, or evenly spaced samples of a large span."""
    if len(words) <= _SAMPLES * _SAMPLE:
        return words
    starts = np.linspace(0, len(words) - _SAMPLE, _SAMPLES, dtype=np.int64)
    return np.concatenate([words[start : start + _SAMPLE] for start in starts])
