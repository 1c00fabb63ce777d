"""Divides curated training samples into samples to train on and held-out samples.

The jobs `sft` and `grpo` never train on the held-out samples, but validate the policy on them. Only
the job `evaluate` uses the test split.
"""

import hashlib
from collections.abc import Sequence

from awares.sample import Sample

_LARGEST_PART = 10
"""At most 1 / _LARGEST_PART of the samples are held out."""


def divide(samples: Sequence[Sample], count: int) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to train on and the held-out samples, each in the order of `samples`.

    At most `count` samples, and at most a tenth of all samples, are held out. Samples with the same
    image stay together, because the hash of the image decides.

    Example:
        divide(samples, 256)
    """
    left = min(count, len(samples) // _LARGEST_PART)
    sizes: dict[str, int] = {}
    for sample in samples:
        sizes[sample.image] = sizes.get(sample.image, 0) + 1
    chosen: set[str] = set()
    for image in sorted(sizes, key=lambda image: hashlib.sha256(image.encode()).digest()):
        if sizes[image] <= left:
            chosen.add(image)
            left -= sizes[image]
    kept = [sample for sample in samples if sample.image not in chosen]
    return kept, [sample for sample in samples if sample.image in chosen]
