"""Finds duplicates within a data set, and rows that occur in evaluation sets as well.

Two rows are the same if their questions and answers match and their images look alike. Similar
images alone do not suffice, because they may show different copies of a form.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from awares.sample import Sample
from awares.text_form import normalise
from awares_platform.data.dataset import Split

IMAGE_HASH = "perceptual_hash"
"""The column with the perceptual hash of a row's image, as hexadecimal digits."""
NEAR = 10
"""Two images look alike if at most this number of the 256 bits of their hashes differ."""


class Seen:
    """Remembers rows. A row costs about 200 bytes of memory.

    Example:
        seen = Seen()
        seen.add(sample, image_hash)
        seen.has(sample, image_hash)  # True
    """

    def __init__(self) -> None:
        self._hashes: dict[bytes, list[int]] = {}
        self._images: set[bytes] = set()

    def add(self, sample: Sample, image_hash: int | None) -> None:
        """Remember a row. `image_hash` is its image's `perceptual_hash`, or None."""
        self._images.add(bytes.fromhex(sample.image))
        if image_hash is not None:
            self._hashes.setdefault(_text_key(sample), []).append(image_hash)

    def add_split(self, split: Split) -> None:
        """Remember a split's rows. If a row has no perceptual hash, remember only its image."""
        for sample, columns in zip(split.samples, split.columns, strict=True):
            image_hash = columns.get(IMAGE_HASH)
            self.add(sample, int(image_hash, 16) if image_hash else None)

    def has(self, sample: Sample, image_hash: int) -> bool:
        """Return whether a row with the same texts and a similar image has been added."""
        return _is_near(image_hash, self._hashes.get(_text_key(sample), ()))

    def has_image(self, digest: str) -> bool:
        """Return whether a row whose image has this hash has been added."""
        return bytes.fromhex(digest) in self._images

    def has_row(self, sample: Sample, columns: Mapping[str, Any]) -> bool:
        """Return whether the row or its image has been added.

        `columns` are the further columns of the row, which may include the image hash.
        """
        image_hash = columns.get(IMAGE_HASH)
        return self.has_image(sample.image) or bool(
            image_hash and self.has(sample, int(image_hash, 16))
        )


def _is_near(image_hash: int, others: Iterable[int]) -> bool:
    return any((image_hash ^ other).bit_count() <= NEAR for other in others)


def _text_key(sample: Sample) -> bytes:
    texts = [normalise(sample.question), *sorted(set(map(normalise, sample.answers)))]
    return hashlib.sha256("\0".join(texts).encode()).digest()[:16]
