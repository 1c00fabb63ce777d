"""Cuts the train split into shards, checks which ones are finished, and writes the manifest."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.config.data import DataConfig
from awares_platform.curate.label_shard import LOST
from awares_platform.data.dataset import SamplesDigest, read_manifest, shard_key, write_manifest
from awares_platform.data.rows import decode_rows
from awares_platform.runtime.run import versions
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training.recipe import Recipe, answer_recipe, digest

SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the split, which becomes one parquet file of the curated split.

    Example:
        Shard("datasets/awares-mini-curated/train/part-00003.parquet", (sample,), "ab12...")
    """

    key: str
    """Store key of the parquet file."""
    samples: tuple[Sample, ...]
    """Samples, still without labels."""
    fingerprint: str
    """Digest of everything on which the labels depend."""
    answers: str = ""
    """Store key of the base policy's answers."""


def plan(data: DataConfig, samples: Sequence[Sample], recipe: Recipe) -> list[Shard]:
    """Cut `samples` into shards.

    The fingerprint of a shard is a digest of its samples and of `recipe`, the recipe of the labels.
    """
    size, settings, asked = data.shard_rows, digest(recipe), digest(answer_recipe(recipe))
    shards = []
    for index, start in enumerate(range(0, len(samples), size)):
        part = tuple(samples[start : start + size])
        key = shard_key(data.curated, SPLIT, index)
        texts = [repr(sample) for sample in part]
        answers = f"{data.answers_prefix}{_digest([asked, *texts])}.parquet"
        shards.append(Shard(key, part, _digest([settings, *texts]), answers))
    return shards


def is_finished(store: ObjectStore, shard: Shard) -> bool:
    """Return whether the store holds this shard with the same fingerprint and no damaged row.

    A shard with unreadable replies and no labelled sample counts as unfinished, because the
    endpoint that sent the replies may be repaired.
    """
    try:
        rows = decode_rows(store.get(shard.key), shard.key)
    except NotFound:
        return False
    empty = not rows.samples and int(rows.metadata.get(LOST, "0")) > 0
    same = rows.metadata.get("fingerprint") == shard.fingerprint
    return same and not rows.faults and not empty


def write_curated(
    store: ObjectStore, data: DataConfig, shards: Sequence[Shard], recipe: Recipe
) -> None:
    """Write the manifest of the curated split, whose shards are all in the store.

    Raises DataError if no sample has a label.
    """
    keys, rows, content = [shard.key for shard in shards], 0, SamplesDigest()
    for key in keys:
        samples = decode_rows(store.get(key), key).samples
        rows += len(samples)
        content.add(samples)
    if not rows:
        raise DataError(
            f"none of the {sum(len(shard.samples) for shard in shards)} questions of {data.name} "
            "has a label; the log and metrics.jsonl of curate say why each one is left out"
        )
    made = {
        "fingerprint": _digest(shard.fingerprint for shard in shards),
        "settings": recipe,
        "versions": versions(),
    }
    images = read_manifest(store, data.name, SPLIT).get("images")
    write_manifest(store, data.curated, SPLIT, keys, rows, made, images, content=content.hex())


def _digest(parts: Iterable[str]) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part.encode() + b"\0")
    return hashed.hexdigest()
