"""Derives each seed only from the run's seed and the seed's purpose.

A run therefore has the same data and the same order of prompts on any machine.
"""

import hashlib
import random
from collections.abc import Iterable


def derive(run_seed: int, job: str, sample_id: str = "", epoch: int = 0, index: int = 0) -> int:
    """Return a seed in [0, 2^63) that depends only on the arguments, on every machine.

    `index` distinguishes several seeds with the same purpose, such as one seed per engine.

    Example:
        derive(0, "grpo", "mini/train/17", epoch=1, index=3)
    """
    # Prefix each part with its length, so that different arguments never have the same encoding.
    parts = [str(value).encode() for value in (run_seed, job, sample_id, epoch, index)]
    encoded = b"".join(len(part).to_bytes(4) + part for part in parts)
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest()) >> 1


def shuffled(sample_ids: Iterable[str], run_seed: int, job: str, epoch: int = 0) -> list[str]:
    """Return the ids in the seeded order of an epoch. The order of `sample_ids` has no effect."""
    ids = sorted(sample_ids)
    random.Random(derive(run_seed, job, epoch=epoch)).shuffle(ids)
    return ids
