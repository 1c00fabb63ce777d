"""Encodes and decodes the kind "ulp": the positions of the changed words, and their steps.

Most changes take one byte. The gap of a changed word is the number of unchanged words directly
before it. The move of a changed word is a code of two bits that says by how many steps the word
changed. There are four streams:

    changes      One byte per changed word: low six bits of the gap | move << 6.
                 Move 0 is one step up, and move 1 is one step down.
                 Move 2 takes the number of steps from the stream "other steps".
                 Move 3 means that the gap needs more than six bits. The next byte of the stream
                 "wide gaps" then holds further bits of the gap and the real move.
    wide gaps    One byte per gap of more than six bits: the next six bits of the gap | move << 6.
                 These six bits are zero if the gap needs more than twelve bits.
    far gaps     Two bytes per gap of more than twelve bits: all bits above the lowest six.
    other steps  The numbers of steps of the words with move 2, zigzag coded.

If the changes are spread at random, the gaps are geometrically distributed. The low bits of a gap
are then independent of its high bits, and zstd's Huffman code comes near the entropy of the
changes. Two separate streams for gaps and moves would be larger, because zstd finds costly matches
in them.
"""

import numpy as np
from numpy.typing import NDArray

from awares_platform.weights.codec.stream import Cursor, Parts, pack_words, unpack_words
from awares_platform.weights.codec.words import Bytes, Words, WordType, unzigzag, zigzag
from awares_platform.weights.manifest import WeightsError

_BLOCK = 1 << 18
"""Number of words or changes in one block. Temporary arrays of this size fit the CPU's caches."""
_GAP_BITS = 6
_GAP = (1 << _GAP_BITS) - 1
_DOWN, _OTHER, _WIDE = 1 << _GAP_BITS, 2 << _GAP_BITS, 3 << _GAP_BITS
"""The moves 1 to 3, in the top two bits of a byte.

- Move 0: one step up.
- Move 1: one step down.
- Move 2: a number of steps in the stream "other steps".
- Move 3: a gap of more than six bits. The stream "wide gaps" has further bits and the real move.

If a gap has more than twelve bits, these bits are zero, and "far gaps" has the gap's upper bits.
"""

Positions = NDArray[np.int64]


def encode(word: WordType, base: Words, new: Words) -> Parts:
    """Return the streams "changes", "wide gaps", "far gaps" and "other steps", in this order.

    The result is empty if no word changed.
    """
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
    """Apply the changes in the streams to `words`, in place.

    `words` holds the base's words before the call and the new words after it. Raises WeightsError
    for damaged streams.
    """
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
    """A decoded stream of words. `pop` takes words from its front.

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
    """Return the positions at which the words of the two arrays differ.

    Most words are unchanged. The function therefore first finds the groups of eight words that
    contain a change, and then searches only these groups.
    """
    lanes = np.zeros(len(old) + -len(old) % 8, bool)
    np.not_equal(old, now, out=lanes[: len(old)])
    eights = lanes.view(np.uint64)
    hit = np.flatnonzero(eights != 0)
    lane = np.flatnonzero(eights[hit].view(bool))
    return lane + ((hit - np.arange(len(hit))) << 3)[lane >> 3]


def _gaps(changed: Positions, last: int, moved: Bytes) -> tuple[Bytes, Bytes, NDArray[np.uint16]]:
    """Return the streams "changes", "wide gaps" and "far gaps".

    Positions count from the first word of the block. `last` is the position of the last change
    before the block. `moved` holds the moves in the top two bits, and is overwritten.
    """
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
    """Return the increasing positions of the changed words, and their real moves.

    `last` is the position of the previous change, or -1. A move is in the top two bits of its byte.
    Raises WeightsError for damaged streams.
    """
    gaps = (changes & _GAP).astype(np.int64)
    where = np.flatnonzero(changes >= _WIDE)
    moved = changes
    if len(where):
        moved = changes.copy()
        moved[where] = entries = wide.pop(len(where))
        if entries.max() >= _WIDE:
            raise WeightsError("encoded tensor is damaged: the move of a wide gap is 3")
        high = (entries & _GAP).astype(np.int64)
        beyond = np.flatnonzero(high == 0)
        high[beyond] = far.pop(len(beyond))
        gaps[where] += high << _GAP_BITS
    gaps += 1
    gaps[0] += last
    return np.cumsum(gaps, out=gaps), moved
