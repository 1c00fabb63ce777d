"""Reads and writes data sets in the object store.

    datasets/<name>/<split>/part-00000.parquet ...     rows of `Sample` (rows.py)
    datasets/<name>/<split>/manifest.json              written last; lists the parquet files
    images/<sha-256 of the file>                       shared by all data sets
    images/packs/, images/indexes/                     many images in one object (packs.py)

A split without a manifest is unfinished. A reader skips and logs unusable rows and files.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.data.image_object import put_image
from awares_platform.data.images import Images
from awares_platform.data.manifest import (
    SamplesDigest,
    read_manifest,
    remedy,
    split_prefix,
    withdraw_manifest,
    write_manifest,
)
from awares_platform.data.packs import PackWriter
from awares_platform.data.rows import Fault, decode_rows, encode_rows
from awares_platform.runtime.progress import Progress
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

if TYPE_CHECKING:
    from awares_platform.config.data import DataConfig

__all__ = [
    "Images",
    "PackWriter",
    "SamplesDigest",
    "Split",
    "ensure_mini",
    "put_image",
    "read_manifest",
    "read_samples",
    "read_split",
    "shard_key",
    "split_prefix",
    "withdraw_manifest",
    "write_manifest",
    "write_samples",
]

log = logging.getLogger(__name__)

MiniSplit = Literal["train", "test"]

SHARD_ROWS = 512
REPORTED_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Split:
    """The content of a split.

    Example:
        fault = Fault("datasets/x/train/part-00000.parquet", 3, "question: empty")
        Split((sample,), ({"verdict": "2"},), (fault,))
    """

    samples: tuple[Sample, ...]
    """The usable samples."""
    columns: tuple[dict[str, Any], ...]
    """For each sample, a dict of the columns that are no fields of `Sample`."""
    faults: tuple[Fault, ...]
    """The unusable rows and files."""


def shard_key(name: str, split: str, index: int) -> str:
    """Return the key of one parquet file of a split."""
    return f"{split_prefix(name, split)}part-{index:05d}.parquet"


def write_samples(
    store: ObjectStore,
    name: str,
    split: str,
    samples: Iterable[Sample],
    shard_rows: int = SHARD_ROWS,
    recipe: object = None,
    packs: PackWriter | None = None,
) -> None:
    """Write a split: first its parquet files and its packs, then the manifest.

    `recipe` is a JSON value that describes how the split was made. `packs` holds the samples'
    images, except those that `put_image` has stored.
    """
    withdraw_manifest(store, name, split)
    keys, rows, content = [], 0, SamplesDigest()
    for index, shard in enumerate(_shards(samples, shard_rows)):
        keys.append(shard_key(name, split, index))
        store.put(keys[-1], encode_rows(shard))
        rows += len(shard)
        content.add(shard)
    images = packs and packs.finish()
    write_manifest(store, name, split, keys, rows, recipe, images, content=content.hex())


def _shards(samples: Iterable[Sample], shard_rows: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while shard := list(islice(iterator, shard_rows)):
        yield shard


def read_split(store: ObjectStore, name: str, split: str, limit: int | None = None) -> Split:
    """Read up to `limit` usable samples of a split, in order.

    Raises DataError if the split is missing, or if it has no usable row.
    """
    samples: list[Sample] = []
    columns: list[dict[str, Any]] = []
    faults: list[Fault] = []
    for key in read_manifest(store, name, split)["shards"]:
        if limit is not None and len(samples) >= limit:
            break
        try:
            rows = decode_rows(store.get(key), key)
        except NotFound as error:
            faults.append(Fault(key, None, f"missing ({error})"))
            continue
        samples += rows.samples
        columns += rows.columns
        faults += rows.faults
    report_faults(faults)
    samples = distinct(samples)
    if not samples:
        raise DataError(
            f"data set {name!r} split {split!r} has no usable row ({len(faults)} faults; "
            f"first: {faults[:1]}): {remedy(name)}"
        )
    return Split(tuple(samples[:limit]), tuple(columns[:limit]), tuple(faults))


def distinct(samples: Sequence[Sample]) -> list[Sample]:
    """Rename samples so that all ids are distinct. The second sample with the id "a" becomes "a~2".

    Merged sources often share ids, but jobs look samples up by id.
    """
    taken: set[str] = set()
    return [rename(sample, taken) for sample in samples]


def rename(sample: Sample, taken: set[str]) -> Sample:
    """Return the sample with an id that is not in `taken`, and add this id to `taken`."""
    name, number = sample.sample_id, 1
    while name in taken:
        number += 1
        name = f"{sample.sample_id}~{number}"
    taken.add(name)
    return sample if number == 1 else replace(sample, sample_id=name)


def read_samples(
    store: ObjectStore, name: str, split: str, limit: int | None = None
) -> list[Sample]:
    """Return the usable samples of a split, in order. Raises the same errors as `read_split`."""
    return list(read_split(store, name, split, limit).samples)


def report_faults(faults: Sequence[Fault]) -> None:
    """Log the number of faults, and the first few faults with their key and row."""
    if not faults:
        return
    log.warning("skipped %d unusable rows or files", len(faults))
    for fault in faults[:REPORTED_FAULTS]:
        log.warning("skipped %s", fault)


def ensure_mini(config: "DataConfig", store: ObjectStore) -> None:
    """Write AwaRes-Mini's two splits and their images to datasets/<config.name>/.

    A finished split with the same recipe (size, seed and generator) is not written again.
    """
    from awares.mini.benchmark import generate_split

    splits: tuple[tuple[MiniSplit, int], ...] = (
        ("train", config.train_samples),
        ("test", config.test_samples),
    )
    for split, count in splits:
        # The first sample is part of the recipe because it differs if the generator has changed.
        first = repr(next(generate_split(split, 1, config.seed))[1])
        recipe = {
            "count": count,
            "seed": config.seed,
            "shard_rows": config.shard_rows,
            "first": first,
        }
        if _recipe(store, config.name, split) == recipe:
            continue
        unit = f"questions generated for AwaRes-Mini's {split} split"
        with Progress("data", total=count, unit=unit) as progress:
            packs = PackWriter(store)
            samples = _generate(packs, split, count, config.seed, progress)
            write_samples(store, config.name, split, samples, config.shard_rows, recipe, packs)
        where = split_prefix(config.name, split)
        log.info("wrote %d questions of AwaRes-Mini to %s", count, where)


def _recipe(store: ObjectStore, name: str, split: str) -> Any:
    try:
        return read_manifest(store, name, split).get("recipe")
    except DataError:
        return None


def _generate(
    packs: PackWriter, split: MiniSplit, count: int, seed: int, progress: Progress
) -> Iterator[Sample]:
    """Yield the samples of a split, and put their images into packs."""
    from awares.mini.benchmark import generate_split

    for data, sample in generate_split(split, count, seed):
        packs.put(data)
        progress.advance()
        yield sample
