"""Reads and writes the manifest of a split, datasets/<name>/<split>/manifest.json.

    format     1
    shards     keys of the parquet files
    rows       number of rows in all shards
    recipe     how the split was made
    images     key of the pack index (packs.py), or null if each image is a separate object
    content    digest of the samples

The manifest is written last, and so marks the split as finished.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from awares.errors import DataError, MissingData
from awares.sample import Sample
from awares_platform.config.data import CURATED
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound


def split_prefix(name: str, split: str) -> str:
    """Return the key prefix of a split."""
    return f"datasets/{name}/{split}/"


def write_manifest(
    store: ObjectStore,
    name: str,
    split: str,
    keys: Sequence[str],
    rows: int,
    recipe: object = None,
    images: str | None = None,
    content: str | None = None,
) -> None:
    """Write the manifest, which marks the split as finished.

    The module's docstring lists the fields. `keys` are the shards' store keys. `content` is the
    result of `SamplesDigest.hex`.
    """
    manifest = {
        "format": 1,
        "shards": list(keys),
        "rows": rows,
        "recipe": recipe,
        "images": images,
        "content": content,
    }
    store.put(_key(name, split), json.dumps(manifest, indent=1).encode())


class SamplesDigest:
    """Computes a digest of samples in their order.

    The digest does not depend on how the samples are divided into files, or on additional columns.

    Example:
        digest = SamplesDigest()
        digest.add([sample])
        digest.hex()  # "5f2a..."
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, samples: Iterable[Sample]) -> None:
        """Add the next samples."""
        for sample in samples:
            self._digest.update(repr(sample).encode() + b"\0")

    def hex(self) -> str:
        """Return the digest of all samples so far."""
        return self._digest.hexdigest()


def samples_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a split's samples.

    If the manifest has no such digest, return a digest of the manifest itself.
    """
    return manifest.get("content") or (
        hashlib.sha256(json.dumps(dict(manifest), sort_keys=True).encode()).hexdigest()
    )


def withdraw_manifest(store: ObjectStore, name: str, split: str) -> None:
    """Delete the manifest, so that no reader sees the split while its files are replaced."""
    store.delete(_key(name, split))


def read_manifest(store: ObjectStore, name: str, split: str) -> dict[str, Any]:
    """Return the manifest of a split.

    Raises MissingData if the split is missing or unfinished. Raises DataError if its manifest is
    unreadable.
    """
    key = _key(name, split)
    try:
        manifest = json.loads(store.get(key))
    except NotFound as error:
        raise MissingData(
            f"data set {name!r} has no finished split {split!r} ({error}): {remedy(name)}"
        ) from error
    except ValueError as error:
        raise DataError(f"{key} is not a manifest ({error}): {remedy(name)}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise DataError(f"{key} lists no shards: {remedy(name)}")
    return manifest


def is_written(store: ObjectStore, name: str, split: str) -> bool:
    """Return whether the split is finished."""
    return store.exists(_key(name, split))


def pack_indexes(store: ObjectStore, splits: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the key of each pack index of `splits`. Skip a split without a manifest."""
    found: set[str] = set()
    for name, split in splits:
        if not is_written(store, name, split):
            continue
        key = read_manifest(store, name, split).get("images")
        if key and key not in found:
            found.add(key)
            yield key


def remedy(name: str) -> str:
    """Return advice on how to create a usable split of the data set `name`."""
    if CURATED in name:
        return "run `awares curate` first"
    return 'import it with `awares import`, or set data.source = "mini"'


def _key(name: str, split: str) -> str:
    return f"{split_prefix(name, split)}manifest.json"
