"""Keeps the training split of a data set free of the rows of a newly imported test split."""

from collections.abc import Mapping
from typing import Any

from awares.errors import DataError
from awares_platform.data.intake.seen import Seen
from awares_platform.data.manifest import (
    SamplesDigest,
    is_written,
    read_manifest,
    samples_digest,
    split_prefix,
    write_manifest,
)
from awares_platform.data.rows import Rows, decode_rows, encode_rows
from awares_platform.store import ObjectStore

TRAIN = "train"


def clean_train(store: ObjectStore, name: str, held: Seen, reason: str) -> int:
    """Remove each row that is in `held` from the split "train" of a data set.

    Return the number of removed rows, which the manifest counts as refused for `reason`. A killed
    call is completed by the next call.

    Raises DataError, before anything is written, if a shard has a fault.
    """
    if not is_written(store, name, TRAIN):
        return 0
    manifest = read_manifest(store, name, TRAIN)
    content, left, changed = SamplesDigest(), 0, []
    for key in manifest["shards"]:
        rows = _read(store, name, key)
        kept = _kept(rows, held)
        content.add(rows.samples[index] for index in kept)
        left += len(kept)
        if len(kept) < len(rows.samples):
            changed.append(key)
    for key in changed:
        rows = _read(store, name, key)
        store.put(key, _encoded(rows, _kept(rows, held)))
    # The manifest still counts the rows that an earlier, killed call has removed from the shards.
    removed = manifest["rows"] - left
    if content.hex() != samples_digest(manifest):
        recipe = _counted(manifest.get("recipe"), left, removed, reason)
        images, digest = manifest.get("images"), content.hex()
        write_manifest(store, name, TRAIN, manifest["shards"], left, recipe, images, digest)
    return removed


def _read(store: ObjectStore, name: str, key: str) -> Rows:
    """Decode the shard `key`. Raises DataError if the shard has a fault."""
    rows = decode_rows(store.get(key), key)
    if rows.faults:
        raise DataError(
            f"{rows.faults[0]}: restore the file, or delete {split_prefix(name, TRAIN)} from the "
            f"store and import the split {TRAIN!r} again"
        )
    return rows


def _counted(recipe: Any, left: int, removed: int, reason: str) -> Any:
    """Return the recipe of an import with updated counts of rows and refusals."""
    if not (isinstance(recipe, Mapping) and "counts" in recipe):
        return recipe
    counts = recipe["counts"]
    refused = {**counts["refused"], reason: counts["refused"].get(reason, 0) + removed}
    rows = {**counts["rows"], TRAIN: left}
    return {**recipe, "counts": {**counts, "rows": rows, "refused": refused}}


def _kept(rows: Rows, held: Seen) -> list[int]:
    """Return the indexes of the rows that are not in `held`."""
    pairs = zip(rows.samples, rows.columns, strict=True)
    return [index for index, pair in enumerate(pairs) if not held.has_row(*pair)]


def _encoded(rows: Rows, kept: list[int]) -> bytes:
    """Encode only the rows whose indexes are in `kept`, with their columns and the metadata."""
    columns = [rows.columns[index] for index in kept]
    names = rows.columns[0].keys()
    values = {name: [one[name] for one in columns] for name in names}
    return encode_rows([rows.samples[index] for index in kept], values, rows.metadata)
