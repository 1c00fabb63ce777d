"""Spans: four MiB of a tensor, each in the kind that is cheapest for it."""

from collections.abc import Callable

import numpy as np

from awares_platform.weights.codec import sparse
from awares_platform.weights.codec.stream import Cursor, Parts, pack_planes, size, unpack_planes
from awares_platform.weights.codec.words import Words, WordType, unzigzag, zigzag
from awares_platform.weights.manifest import WeightsError

BYTES = 1 << 22
KINDS = ("same", "ulp", "steps", "xor", "dense")  # a blob holds the index
_SAMPLES, _SAMPLE = 8, 512  # stretches of a large span on which the kinds compete, and their words
_SPARSE = (
    1 / 8
)  # share of changed words up to which a number for every word costs more than marking those
_QUICKER = 1.05  # of a large span, what it may cost more to mark every word, which is quicker

Encoder = Callable[[WordType, Words, Words], Parts]

ENCODERS: dict[str, Encoder] = {
    "ulp": sparse.encode,
    "steps": lambda word, base, new: pack_planes(zigzag(word.steps(base, new))),
    "xor": lambda word, base, new: pack_planes(base ^ new),
    "dense": lambda word, base, new: pack_planes(word.exponent_first(new)),
}


def encode(word: WordType, base: Words | None, new: Words) -> tuple[str, Parts]:
    """The cheapest kind and its bytes, never more than the words' and 4 per plane. `base` None allows only "dense"."""
    if base is None:
        return "dense", ENCODERS["dense"](word, new, new)
    name = _choose(word, base, new)
    parts = ENCODERS[name](word, base, new)
    if name != "dense" and size(parts) > new.nbytes // 2:  # the sample may have misled
        return min(
            (name, parts),
            ("dense", ENCODERS["dense"](word, base, new)),
            key=lambda encoded: size(encoded[1]),
        )
    return (name, parts) if parts else ("same", [])


def decode(word: WordType, name: str, data: memoryview, base: Words | None, out: Words) -> None:
    """Write the span's words into `out`, which may be `base`. Raises WeightsError; `out` is then undefined."""
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
        costs["ulp"] *= _QUICKER
    return min(costs, key=lambda name: costs[name])


def _sample(words: Words) -> Words:
    """All of a small span, evenly spaced stretches of a large one."""
    if len(words) <= _SAMPLES * _SAMPLE:
        return words
    starts = np.linspace(0, len(words) - _SAMPLE, _SAMPLES, dtype=np.int64)
    return np.concatenate([words[start : start + _SAMPLE] for start in starts])
