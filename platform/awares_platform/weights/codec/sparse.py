"""The kind "ulp": which words changed, and by how many steps. A small change takes one byte.

The gap of a changed word is the number of unchanged words before it. There are four streams:

    changes      one byte per changed word: low six bits of the gap | move << 6
                 move 0: one step up, 1: one step down, 2: the next of the other steps,
                 3: the gap does not fit, the next wide gap continues it
    wide gaps    one byte: the next six bits of the gap | move << 6
                 six zero bits: the next far gap holds them
    far gaps     two bytes: the bits of the gap above the lowest six
    other steps  the steps of the words with move 2, zigzag coded

If the changes are spread at random, the gaps are geometrically distributed: the low bits of a gap
do not depend on its high bits. zstd's Huffman code then comes near the entropy of the changes.
Gaps and moves in two separate streams are larger, because zstd finds costly matches in them.
"""

import numpy as np
from numpy.typing import NDArray

from awares_platform.weights.codec.stream import Cursor, Parts, pack_words, unpack_words
from awares_platform.weights.codec.words import Bytes, Words, WordType, unzigzag, zigzag
from awares_platform.weights.manifest import WeightsError

_BLOCK = 1 << 18
"""Words, or changes, that are handled at a time, so that temporaries fit the CPU's caches."""
_GAP_BITS = 6
_GAP = (1 << _GAP_BITS) - 1
_DOWN, _OTHER, _WIDE = 1 << _GAP_BITS, 2 << _GAP_BITS, 3 << _GAP_BITS

Positions = NDArray[np.int64]


def encode(word: WordType, base: Words, new: Words) -> Parts:
    """Return the four streams in the order above, or nothing if no word changed."""
    last, blocks = -1, []
    for start in range(0, len(base), _BLOCK):
        old, now = base[start : start + _BLOCK], new[start : start + _BLOCK]
        changed = _changed(old, now)
        if len(changed):
            steps = word.steps(old[changed], now[changed])
            other = np.abs(steps) != 1
            moved = (steps == -1).view(np.uint8) << _GAP_BITS
            moved |= other.view(np.uint8) << _GAP_BITS + 1
            blocks.append((*_gaps(changed, last - start, moved), zigzag(steps[other])))
            last = start + int(changed[-1])
    return [
        part for stream in zip(*blocks, strict=True) for part in pack_words(np.concatenate(stream))
    ]


def decode(word: WordType, cursor: Cursor, words: Words) -> None:
    """Turn the base's `words` into the new ones, in place. Raises WeightsError for damage."""
    changes = unpack_words(cursor, len(words), np.uint8)
    wide = _Queue(unpack_words(cursor, len(changes), np.uint8))
    far = _Queue(unpack_words(cursor, len(wide), np.uint16))
    others = _Queue(unzigzag(unpack_words(cursor, len(changes), words.dtype)))
    last = -1
    for at in range(0, len(changes), _BLOCK):
        positions, moved = _positions(changes[at : at + _BLOCK], last, wide, far)
        last = int(positions[-1])
        if last >= len(words):
            raise WeightsError(f"encoded tensor is damaged: word {last} of {len(words)} changed")
        steps = 1 - 2 * (moved >> _GAP_BITS).astype(words.dtype)
        other = np.flatnonzero(moved >= _OTHER)
        steps[other] = others.pop(len(other))
        words[positions] = word.step(words[positions], steps)
    for queue in (wide, far, others):
        queue.end()


class _Queue:
    """A stream of words that are taken from its front.

    Example:
        _Queue(np.array([3, 1, 4])).pop(2)  # 3, 1
    """

    def __init__(self, words: np.ndarray) -> None:
        self.words, self.used = words, 0

    def __len__(self) -> int:
        return len(self.words)

    def pop(self, count: int) -> np.ndarray:
        self.used += count
        if self.used > len(self):
            raise WeightsError(
                f"encoded tensor is damaged: a stream of {len(self)} words ends early"
            )
        return self.words[self.used - count : self.used]

    def end(self) -> None:
        if self.used != len(self):
            raise WeightsError(
                f"encoded tensor is damaged: {len(self) - self.used} of {len(self)} words of a "
                "stream were not used"
            )


def _changed(old: Words, now: Words) -> Positions:
    """The positions where the words differ.

    Eight words are compared at a time first, because numpy's search takes most of its time on
    the words that did not change.
    """
    lanes = np.zeros(len(old) + -len(old) % 8, bool)
    np.not_equal(old, now, out=lanes[: len(old)])
    eights = lanes.view(np.uint64)
    hit = np.flatnonzero(eights != 0)
    lane = np.flatnonzero(eights[hit].view(bool))
    return lane + ((hit - np.arange(len(hit))) << 3)[lane >> 3]


def _gaps(changed: Positions, last: int, moved: Bytes) -> tuple[Bytes, Bytes, NDArray[np.uint16]]:
    """The streams of changes, wide gaps and far gaps; `moved` is overwritten with the first."""
    gaps = np.empty_like(changed)
    gaps[0] = changed[0] - last
    np.subtract(changed[1:], changed[:-1], out=gaps[1:])
    gaps -= 1
    where = np.flatnonzero(gaps > _GAP)
    high, wide = (gaps[where] >> _GAP_BITS).astype(np.uint16), moved[where]
    moved[where] = _WIDE
    moved |= gaps.astype(np.uint8) & _GAP
    far = high > _GAP
    return moved, wide | np.where(far, 0, high).astype(np.uint8), high[far]


def _positions(changes: Bytes, last: int, wide: _Queue, far: _Queue) -> tuple[Positions, Bytes]:
    """Return the positions of the changed words, and bytes with their moves in the top two bits.

    The positions increase strictly. A move of 2 or 3 takes its step from the stream of other steps.
    """
    gaps = (changes & _GAP).astype(np.int64)
    where = np.flatnonzero(changes >= _WIDE)
    moved = changes
    if len(where):
        moved = changes.copy()
        moved[where] = entries = wide.pop(len(where))
        high = (entries & _GAP).astype(np.int64)
        beyond = np.flatnonzero(high == 0)
        high[beyond] = far.pop(len(beyond))
        gaps[where] += high << _GAP_BITS
    gaps += 1
    gaps[0] += last
    return np.cumsum(gaps, out=gaps), moved
