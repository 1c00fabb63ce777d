"""Seeds as pure functions of what they are for, so that the same run gives the same data and prompts in the same order anywhere."""

import hashlib
import random
from collections.abc import Iterable


def derive(run_seed: int, job: str, sample_id: str = "", epoch: int = 0, index: int = 0) -> int:
    """A seed in [0, 2^63) for one use; `index` tells the members of a group apart. Stable across processes, machines and versions.

    Example:
        derive(0, "grpo", "mini/train/17", epoch=1, index=3)
    """
    # Length-prefixed parts: no two uses share one encoding.
    encoded = b"".join(
        len(part).to_bytes(4) + part
        for part in (str(value).encode() for value in (run_seed, job, sample_id, epoch, index))
    )
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest()) >> 1


def shuffled(sample_ids: Iterable[str], run_seed: int, job: str, epoch: int = 0) -> list[str]:
    """The order of an epoch: depends on the set of ids, the seed, the job and the epoch, not on the order given."""
    ids = sorted(sample_ids)
    random.Random(derive(run_seed, job, epoch=epoch)).shuffle(ids)
    return ids
