"""Finds duplicates within a data set, and rows that occur in evaluation sets as well.

Two rows are the same if their questions and their answers are equal after `normalise` and their
images look alike. Pages of one form look alike with different contents, so a similar look alone is
no reason to leave out a row.
"""

import hashlib
from collections.abc import Iterable

from awares.sample import Sample
from awares.text_form import normalise
from awares_platform.data.dataset import Split

LOOK = "look"
"""The column with the hash of the look of a row's image, as hexadecimal digits."""
NEAR = 10
"""Two images look alike if at most this number of the 256 bits of their hashes differ."""


class Seen:
    """Remembers rows. A row costs about 200 bytes of memory.

    Example:
        seen = Seen()
        seen.add(sample, look)
        seen.has(sample, look)  # True
    """

    def __init__(self) -> None:
        self._looks: dict[bytes, list[int]] = {}
        self._images: set[bytes] = set()

    def add(self, sample: Sample, look: int | None) -> None:
        """Remember a row. `look` is the hash of its image's look, or None if it is unknown."""
        self._images.add(bytes.fromhex(sample.image))
        if look is not None:
            self._looks.setdefault(_text_key(sample), []).append(look)

    def add_split(self, split: Split) -> None:
        """Remember the rows of a split. Rows that no import has written have no look."""
        for sample, columns in zip(split.samples, split.columns, strict=True):
            look = columns.get(LOOK)
            self.add(sample, int(look, 16) if look else None)

    def has(self, sample: Sample, look: int) -> bool:
        """Return whether the same row has been added."""
        return _is_near(look, self._looks.get(_text_key(sample), ()))

    def has_image(self, digest: str) -> bool:
        """Return whether a row with exactly this image has been added."""
        return bytes.fromhex(digest) in self._images


def _is_near(look: int, others: Iterable[int]) -> bool:
    return any((look ^ other).bit_count() <= NEAR for other in others)


def _text_key(sample: Sample) -> bytes:
    texts = [normalise(sample.question), *sorted(set(map(normalise, sample.answers)))]
    return hashlib.sha256("\0".join(texts).encode()).digest()[:16]
