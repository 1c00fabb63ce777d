"""Writes the samples of an import in steps, so that a killed import can resume.

    datasets/<name>/<split>/part-00000.parquet             the rows of a step
    datasets/<name>/import-<split>/<recipe>/00000.json     how far the source is read, and counts
    datasets/<name>/import-<split>/<recipe>/00000.index    the places of the step's images

A step writes its JSON file last. If this file is missing, the next run repeats the step.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from awares.sample import Sample
from awares_platform.data.dataset import rename, shard_key
from awares_platform.data.intake.reading import Draft, RefusedRow
from awares_platform.data.intake.seen import IMAGE_HASH, Seen
from awares_platform.data.manifest import (
    SamplesDigest,
    split_prefix,
    withdraw_manifest,
    write_manifest,
)
from awares_platform.data.packs import INDEX_SCHEMA, PackWriter, encode_index
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.store import ObjectStore

_EXAMPLES = 3
"""Maximum number of refused rows that are described for each reason."""


@dataclass(slots=True)
class ImportCounts:
    """What an import has done so far.

    Example:
        ImportCounts((0, 512), {"train": 508}, {"no answer": 4}, {"no answer": ["row 7: ..."]})
    """

    position: tuple[int, int] = (0, 0)
    """Indexes of the next file and of the next row in this file."""
    rows: dict[str, int] = field(default_factory=dict)
    """Number of accepted rows in each split."""
    refused: dict[str, int] = field(default_factory=dict)
    """Number of refused rows for each reason."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Descriptions of the first few refused rows for each reason."""
    renamed: int = 0
    bytes: int = 0

    def refuse(self, refusal: RefusedRow) -> None:
        """Count a refused row."""
        self.refused[refusal.reason] = self.refused.get(refusal.reason, 0) + 1
        examples = self.examples.setdefault(refusal.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{refusal.where}: {refusal.detail}")


class SplitsWriter:
    """Writes the splits of one import. `recipe` describes the source and the settings.

    Example:
        writer = SplitsWriter(store, "invoices", ("train", "test"), recipe, 512)
        position = writer.resume(seen)
        writer.add("train", draft, digest)
        writer.step((0, 1))
        writer.finish()
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        splits: tuple[str, ...],
        recipe: Mapping[str, Any],
        shard_rows: int,
    ) -> None:
        self._store, self._name, self._splits, self._recipe = store, name, splits, recipe
        self._shard_rows = shard_rows
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        self._all_steps = f"datasets/{name}/import-{splits[0]}/"
        self._steps = f"{self._all_steps}{digest[:16]}/"
        self._ids: dict[str, set[str]] = {split: set() for split in splits}
        self._content = {split: SamplesDigest() for split in splits}
        self._shards: dict[str, list[str]] = {split: [] for split in splits}
        self._done = 0
        self.counts = ImportCounts(rows=dict.fromkeys(splits, 0))
        self._begin()

    def _begin(self) -> None:
        self._packs = PackWriter(self._store)
        self._open: dict[str, list[tuple[Sample, int]]] = {split: [] for split in self._splits}

    def resume(self, seen: Seen) -> tuple[int, int]:
        """Restore the finished steps of the same recipe. Return where in the source to continue.

        Adds the finished rows to `seen`. Deletes the steps of other recipes.
        """
        entries = [entry.key for entry in self._store.list(self._all_steps)]
        for key in entries:
            if not key.startswith(self._steps):
                self._store.delete(key)
        for key in sorted(key for key in entries if key.startswith(self._steps)):
            if key.endswith(".json"):
                self._restore(json.loads(self._store.get(key)), seen)
        for split in self._splits:
            withdraw_manifest(self._store, self._name, split)
        return self.counts.position

    def _restore(self, step: Mapping[str, Any], seen: Seen) -> None:
        counts = step["counts"]
        self.counts = ImportCounts(**{**counts, "position": tuple(counts["position"])})
        self._done += 1
        for split, key in step["shards"].items():
            self._shards[split].append(key)
            rows = decode_rows(self._store.get(key), key)
            self._content[split].add(rows.samples)
            for sample, columns in zip(rows.samples, rows.columns, strict=True):
                self._ids[split].add(sample.sample_id)
                seen.add(sample, int(columns[IMAGE_HASH], 16))

    @property
    def is_full(self) -> bool:
        """True if enough unwritten rows are in memory for a step."""
        return sum(map(len, self._open.values())) >= self._shard_rows

    def add(self, split: str, draft: Draft, digest: str) -> Sample:
        """Add a row to a split, and return the sample. `digest` is the hash of the image file."""
        self._packs.put(draft.picture.data)
        sample = replace(draft.sample, image=digest)
        named = rename(sample, self._ids[split])
        self.counts.renamed += named.sample_id != sample.sample_id
        self.counts.rows[split] += 1
        self.counts.bytes += len(draft.picture.data)
        self._open[split].append((named, draft.picture.image_hash))
        return named

    def step(self, position: tuple[int, int]) -> None:
        """Store the added rows and their images. The source's next row is at `position`."""
        self.counts.position = position
        places, shards = self._packs.flush(), {}
        for split, rows in self._open.items():
            if rows:
                shards[split] = shard_key(self._name, split, len(self._shards[split]))
                samples = [sample for sample, _ in rows]
                hashes = {IMAGE_HASH: [f"{image_hash:064x}" for _, image_hash in rows]}
                self._store.put(shards[split], encode_rows(samples, hashes))
                self._content[split].add(samples)
                self._shards[split].append(shards[split])
        name = f"{self._steps}{self._done:05d}"
        self._store.put(f"{name}.index", encode_index(places))
        step = {"counts": asdict(self.counts), "shards": shards}
        self._store.put(f"{name}.json", json.dumps(step).encode())
        self._done += 1
        self._begin()

    def finish(self) -> None:
        """Write the index of all images and the manifests, and delete the files of the steps."""
        index = self._write_index() if self._done else None
        # Write the requested split last, because its manifest marks the import as finished.
        for split in reversed(self._splits):
            write_manifest(
                self._store,
                self._name,
                split,
                self._shards[split],
                self.counts.rows[split],
                {**self._recipe, "counts": asdict(self.counts)},
                index,
                self._content[split].hex(),
            )
            self._delete_other_shards(split)
        self._store.delete_prefix(self._all_steps)

    def _delete_other_shards(self, split: str) -> None:
        """Delete shards that an earlier, larger data set of this name has left."""
        for entry in self._store.list(f"{split_prefix(self._name, split)}part-"):
            if entry.key not in self._shards[split]:
                self._store.delete(entry.key)

    def _write_index(self) -> str:
        """Merge the indexes of all steps, and return the key of the merged index."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "index.parquet"
            with pq.ParquetWriter(path, INDEX_SCHEMA, compression="zstd") as writer:
                for table in self._indexes():
                    writer.write_table(table)
            key = f"images/indexes/{hashlib.sha256(path.read_bytes()).hexdigest()}"
            self._store.upload_file(path, key)
        return key

    def _indexes(self) -> Iterator[pa.Table]:
        """Yield the index of each step, but each image only once."""
        known: set[bytes] = set()
        for number in range(self._done):
            data = self._store.get(f"{self._steps}{number:05d}.index")
            table = pq.read_table(pa.BufferReader(data), schema=INDEX_SCHEMA)
            images = [bytes.fromhex(image) for image in table.column("image").to_pylist()]
            yield table.filter(pa.array([image not in known for image in images], pa.bool_()))
            known |= set(images)


def total(refused: Mapping[str, int]) -> int:
    """Return the number of all refused rows."""
    return Counter(refused).total()
