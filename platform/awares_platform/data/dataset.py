"""Data sets in the object store: sample shards beside content-addressed images.

    datasets/<name>/<split>/part-00000.parquet ...     rows of `Sample` (rows.py)
    datasets/<name>/<split>/manifest.json              written last: a split without one is not there
    images/<sha-256 of the file>                       shared by all data sets

Damage is counted, reported with key and row, and skipped; only a split that is missing or has no usable row at all is an error.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.config.data import CURATED
from awares_platform.data.images import Images, image_key
from awares_platform.data.rows import Fault, decode_rows, encode_rows
from awares_platform.errors import NotFound, PreconditionFailed
from awares_platform.runtime.progress import Progress
from awares_platform.store import ObjectStore

if TYPE_CHECKING:
    from awares_platform.config import PlatformConfig

__all__ = [
    "Images",
    "Split",
    "ensure_mini",
    "put_image",
    "read_manifest",
    "read_samples",
    "read_split",
    "shard_key",
    "write_manifest",
    "write_samples",
]

log = logging.getLogger(__name__)

MiniSplit = Literal["train", "test"]

SHARD_ROWS = 512
UPLOADS = 16
REPORTED_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Split:
    """A split as read: usable samples, their further columns (aligned), and what could not be used.

    Example:
        Split((sample,), ({"verdict": "2"},), (Fault("datasets/x/train/part-00000.parquet", 3, "question: empty"),))
    """

    samples: tuple[Sample, ...]
    columns: tuple[dict[str, Any], ...]
    faults: tuple[Fault, ...]


def split_prefix(name: str, split: str) -> str:
    """Key prefix of a split."""
    return f"datasets/{name}/{split}/"


def shard_key(name: str, split: str, index: int) -> str:
    """Key of a shard."""
    return f"{split_prefix(name, split)}part-{index:05d}.parquet"


def put_image(store: ObjectStore, data: bytes) -> str:
    """Stores an image file under its hash, once; returns the hash."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        store.put(image_key(digest), data, if_none_match=True)
    except PreconditionFailed:
        pass  # the same bytes are there already
    return digest


def write_samples(
    store: ObjectStore,
    name: str,
    split: str,
    samples: Iterable[Sample],
    shard_rows: int = SHARD_ROWS,
    recipe: object = None,
) -> None:
    """Writes a split: shards first, its manifest (with `recipe`, how it was made) last."""
    withdraw_manifest(store, name, split)
    keys, rows = [], 0
    for index, shard in enumerate(_shards(samples, shard_rows)):
        keys.append(shard_key(name, split, index))
        store.put(keys[-1], encode_rows(shard))
        rows += len(shard)
    write_manifest(store, name, split, keys, rows, recipe)


def _shards(samples: Iterable[Sample], shard_rows: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while shard := list(islice(iterator, shard_rows)):
        yield shard


def write_manifest(
    store: ObjectStore, name: str, split: str, keys: Sequence[str], rows: int, recipe: object = None
) -> None:
    """Publishes a split whose shards are all written; `recipe` (JSON) records how it was made."""
    manifest = {"format": 1, "shards": list(keys), "rows": rows, "recipe": recipe}
    store.put(f"{split_prefix(name, split)}manifest.json", json.dumps(manifest, indent=1).encode())


def withdraw_manifest(store: ObjectStore, name: str, split: str) -> None:
    """Makes a split count as unfinished while its shards are replaced: readers see it whole or not at all."""
    store.delete(f"{split_prefix(name, split)}manifest.json")


def read_manifest(store: ObjectStore, name: str, split: str) -> dict[str, Any]:
    """The split's manifest. Raises DataError if the split is missing or unfinished, or its manifest is unreadable."""
    key = f"{split_prefix(name, split)}manifest.json"
    try:
        manifest = json.loads(store.get(key))
    except NotFound as error:
        raise DataError(
            f"data set {name!r} has no finished split {split!r} ({error}): {_remedy(name)}"
        ) from error
    except ValueError as error:
        raise DataError(f"{key} is not a manifest ({error}): {_remedy(name)}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise DataError(f"{key} lists no shards: {_remedy(name)}")
    return manifest


def _remedy(name: str) -> str:
    if name.endswith(CURATED):
        return "run `awares curate` first"
    return 'write it with awares_platform.data.dataset.write_samples, or set data.source = "mini"'


def read_split(store: ObjectStore, name: str, split: str, limit: int | None = None) -> Split:
    """Reads a split in shard order, the first `limit` usable samples of it. Raises DataError if none is usable."""
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
    if not samples:
        raise DataError(
            f"data set {name!r} split {split!r} has no usable row ({len(faults)} faults; first: {faults[:1]}): {_remedy(name)}"
        )
    return Split(tuple(samples[:limit]), tuple(columns[:limit]), tuple(faults))


def read_samples(
    store: ObjectStore, name: str, split: str, limit: int | None = None
) -> list[Sample]:
    """The usable samples of a split, in order; faults are logged with key and row. Raises DataError if none is usable."""
    return list(read_split(store, name, split, limit).samples)


def report_faults(faults: Sequence[Fault]) -> None:
    """Logs what is skipped: a count, and the first few by key and row."""
    if not faults:
        return
    log.warning("skipped %d unusable rows or files", len(faults))
    for fault in faults[:REPORTED_FAULTS]:
        log.warning("skipped %s", fault)


def ensure_mini(config: "PlatformConfig", store: ObjectStore) -> None:
    """Writes AwaRes-Mini's two splits and their images to datasets/<data.name>/, unless a finished split of this size and seed is there."""
    from awares.mini.benchmark import generate_split

    splits: tuple[tuple[MiniSplit, int], ...] = (
        ("train", config.data.train_samples),
        ("test", config.data.test_samples),
    )
    for split, count in splits:
        first = repr(
            next(generate_split(split, 1, config.data.seed))[1]
        )  # changes when the generator does
        recipe = {
            "count": count,
            "seed": config.data.seed,
            "shard_rows": config.data.shard_rows,
            "first": first,
        }
        if _recipe(store, config.data.name, split) == recipe:
            continue
        with Progress(
            "data", total=count, unit=f"questions of AwaRes-Mini's {split} split"
        ) as progress:
            samples = _generate(store, split, count, config.data.seed, progress)
            write_samples(store, config.data.name, split, samples, config.data.shard_rows, recipe)
        log.info(
            "wrote %d questions of AwaRes-Mini to %s", count, split_prefix(config.data.name, split)
        )


def _recipe(store: ObjectStore, name: str, split: str) -> Any:
    try:
        return read_manifest(store, name, split).get("recipe")
    except DataError:
        return None


def _generate(
    store: ObjectStore, split: MiniSplit, count: int, seed: int, progress: Progress
) -> Iterator[Sample]:
    """Generates a split, uploading each distinct image once and several at a time."""
    from awares.mini.benchmark import generate_split

    seen: set[str] = set()
    with ThreadPoolExecutor(UPLOADS) as pool:
        uploads = []
        for data, sample in generate_split(split, count, seed):
            if sample.image not in seen:
                seen.add(sample.image)
                uploads.append(pool.submit(put_image, store, data))
            progress.advance()
            yield sample
        for upload in uploads:
            upload.result()
