"""Runs `awares import`: reads a source, and writes its rows and images as a data set.

    reader thread -> records -> threads decode images -> this thread drops duplicates and writes

A step writes a shard with its images. A killed import resumes after its last finished step.
"""

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from awares.errors import ConfigError, DataError
from awares.evaluation.benchmarks import BENCHMARKS
from awares_platform.config.base import without_added
from awares_platform.config.data import DataConfig
from awares_platform.config.imports import ImportsConfig
from awares_platform.config.store import StoreConfig
from awares_platform.data.dataset import read_split
from awares_platform.data.intake.columns import SourceColumns, choose_columns
from awares_platform.data.intake.contamination import clean_train
from awares_platform.data.intake.picture import PictureFinder
from awares_platform.data.intake.place import SourceFile, files, root_of
from awares_platform.data.intake.reading import Draft, RecordReader, RefusedRow
from awares_platform.data.intake.records import Row, UnreadableRow, choose, of_split, read_rows
from awares_platform.data.intake.seen import Seen
from awares_platform.data.intake.summary import ImportResult, preview
from awares_platform.data.intake.writing import ImportCounts, SplitsWriter
from awares_platform.data.manifest import read_manifest, samples_digest, split_prefix
from awares_platform.runtime.job_lease import dataset_lease, hold
from awares_platform.runtime.progress import Progress
from awares_platform.store import ObjectStore

log = logging.getLogger(__name__)

HELD_OUT = "test"
"""The split for held-out images. An import of the split "train" leaves out this split's rows."""
IN_EVALUATION = "in an evaluation set"
_ADDED = {"benchmark": "none"}
"""Maps newer settings to the values with which an import behaves as in older versions."""
_PEEKED = 20
_SHOWN = 10
_MOST_SHOWN_READ = 200


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import: the name of the data set to write, the source to read, and the split.

    Example:
        ImportRequest("invoices", "pages/train.jsonl", "train")
    """

    name: str
    source: str
    split: str


def dry_run(request: ImportRequest, settings: ImportsConfig, store: StoreConfig) -> str:
    """Return a text that shows the columns and how an import would read the first rows.

    Write nothing. Raises DataError for a wrong source, and ConfigError for a wrong column.
    """
    kind, places, reader = _open(request, settings, store)
    drafts: list[Draft] = []
    counts = ImportCounts()
    for _, row in islice(_rows(places, kind, (0, 0)), _MOST_SHOWN_READ):
        for found in reader.read(row[0], row[1], row[2]):
            if isinstance(found, RefusedRow):
                counts.refuse(found)
            elif len(drafts) < _SHOWN:
                drafts.append(found)
        if len(drafts) >= _SHOWN:
            break
    return preview(kind, len(places), reader.columns, drafts, counts)


def run(
    request: ImportRequest,
    settings: ImportsConfig,
    data: DataConfig,
    store: ObjectStore,
) -> ImportResult:
    """Import a source, or resume an interrupted import of the same source and settings.

    A finished import is not repeated.

    Raises JobRefused if another job writes the data set, and DataError if no row can be used.
    """
    kind, places, reader = _open(request, settings, store.config)
    log.info("reading %d files of the format %s; columns: %s", len(places), kind, reader.columns)
    with hold(store, dataset_lease(request.name), "import", "NAME"):
        recipe = _recipe(request, settings, data, store, places, reader.columns)
        splits = _splits(request.split, settings)
        if done := _finished(store, request, recipe):
            log.info("%s is already imported", split_prefix(request.name, request.split))
            return ImportResult(request.name, request.split, done, resumed=True)
        writer = SplitsWriter(store, request.name, splits, recipe, data.shard_rows)
        counts = _import(request, settings, store, places, kind, reader, writer)
    return ImportResult(request.name, request.split, counts)


def _open(
    request: ImportRequest, settings: ImportsConfig, store: StoreConfig
) -> tuple[str, list[SourceFile], RecordReader]:
    """Return the source's format, its files, and a reader for its columns."""
    settings = _with_benchmark(settings)
    kind, places = choose(files(request.source, store), settings.format, request.source)
    places = of_split(places, settings.source_split or request.split, request.source)
    rows = [row for _, (row, _, _) in islice(_rows(places, kind, (0, 0)), _PEEKED)]
    records = [row for row in rows if not isinstance(row, UnreadableRow)]
    if not records:
        reasons = {row.reason for row in rows if isinstance(row, UnreadableRow)} or {"it is empty"}
        raise DataError(f"{request.source}: no row can be read: {'; '.join(sorted(reasons))}")
    columns = choose_columns(settings, records)
    finder = PictureFinder(root_of(settings.root, request.source, store), settings.hosts)
    return kind, places, RecordReader(columns, settings, finder)


def _with_benchmark(settings: ImportsConfig) -> ImportsConfig:
    """Return the settings. If they name a benchmark, add its columns and its split."""
    found = BENCHMARKS.get(settings.benchmark)
    if found is None:
        return settings
    known = {name: getattr(found, name) for name in ("question", "answer", "sample_id", "kind")}
    known |= {"image": "image", "source_split": settings.source_split or found.split}
    return settings.model_copy(update=known)


def _rows(
    places: Sequence[SourceFile], kind: str, start: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], tuple[Row, str, int]]]:
    """Yield the rows from position `start` on.

    Each item is (position of the next row, (row, name of its file, index of the row in the file)).
    """
    for number in range(start[0], len(places)):
        first = start[1] if number == start[0] else 0
        for index, row in enumerate(read_rows(places[number], kind, first), start=first):
            yield (number, index + 1), (row, places[number].name, index)


def _splits(split: str, settings: ImportsConfig) -> tuple[str, ...]:
    """Return the splits that an import writes. The first is the requested split."""
    if settings.held_out and split == HELD_OUT:
        raise ConfigError(
            f"imports.held_out moves images to the split {HELD_OUT}, which is the split to write; "
            "import the split train, or set imports.held_out=0"
        )
    return (split, HELD_OUT) if settings.held_out else (split,)


def _recipe(
    request: ImportRequest,
    settings: ImportsConfig,
    data: DataConfig,
    store: ObjectStore,
    places: Sequence[SourceFile],
    columns: SourceColumns,
) -> dict[str, Any]:
    """Return everything on which the rows of an import depend."""
    return {
        "source": request.source,
        "split": request.split,
        "files": _files_digest(places),
        "columns": str(columns),
        "settings": _result_settings(settings.model_dump(mode="json")),
        "shard_rows": data.shard_rows,
        "against": {
            f"{name}/{split}": samples_digest(read_manifest(store, name, split))
            for name, split in _against(request, settings, store)
        },
    }


def _files_digest(places: Sequence[SourceFile]) -> str:
    digest = hashlib.sha256()
    for place in places:
        digest.update(f"{place.name}\0{place.version}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _result_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings on which the rows of an import depend."""
    kept = {key: value for key, value in settings.items() if key != "threads"}
    return without_added(kept, _ADDED)


def _finished(
    store: ObjectStore, request: ImportRequest, recipe: dict[str, Any]
) -> ImportCounts | None:
    """Return the counts of a finished import with this recipe, or None."""
    try:
        found = read_manifest(store, request.name, request.split).get("recipe")
    except DataError:
        return None
    if not isinstance(found, dict) or "counts" not in found:
        return None
    same = {**found, "settings": _result_settings(found.get("settings", {}))}
    if {name: value for name, value in same.items() if name != "counts"} != recipe:
        return None
    return ImportCounts(**found["counts"])


def _against(
    request: ImportRequest, settings: ImportsConfig, store: ObjectStore
) -> Iterator[tuple[str, str]]:
    """Yield the name and the split of each data set whose rows must not be in the import."""
    for one in settings.against:
        name, _, split = one.partition("/")
        yield name, split
    own = f"{split_prefix(request.name, HELD_OUT)}manifest.json"
    if request.split != HELD_OUT and not settings.held_out and store.exists(own):
        yield request.name, HELD_OUT


def _import(
    request: ImportRequest,
    settings: ImportsConfig,
    store: ObjectStore,
    places: Sequence[SourceFile],
    kind: str,
    reader: RecordReader,
    writer: SplitsWriter,
) -> ImportCounts:
    """Import all rows after the last finished step, and write the manifests."""
    seen, held = Seen(), _held_rows(store, _against(request, settings, store))
    position = start = writer.resume(seen)
    if start != (0, 0):
        log.info("resuming after %d rows", sum(writer.counts.rows.values()))
    keeps_all = settings.benchmark != "none"
    sorter = _Sorter(request.split, settings.held_out, seen, held, keeps_all)
    threads = settings.threads or os.cpu_count() or 1
    with Progress("import", unit="rows read") as progress:
        for position, found in _decoded(reader, _rows(places, kind, start), threads):
            for one in found:
                sorter.place(one, writer)
            if writer.is_full:
                writer.step(position)
            refused = sum(writer.counts.refused.values())
            progress.advance(note=f"{refused} refused" if refused else "")
    if not any(writer.counts.rows.values()):
        raise DataError(
            f"{request.source}: no row can be used; {writer.counts.refused or 'it has no rows'}, "
            f"such as {next(iter(writer.counts.examples.values()), ['none'])[0]}"
        )
    if position != writer.counts.position:
        writer.step(position)
    if request.split == HELD_OUT and (
        found := clean_train(store, request.name, seen, IN_EVALUATION)
    ):
        log.warning(
            "left %d rows of this split out of %s", found, split_prefix(request.name, "train")
        )
    writer.finish()
    return writer.counts


def _held_rows(store: ObjectStore, splits: Iterator[tuple[str, str]]) -> Seen:
    held = Seen()
    for name, split in splits:
        held.add_split(read_split(store, name, split))
    return held


def _decoded(
    reader: RecordReader,
    rows: Iterator[tuple[tuple[int, int], tuple[Row, str, int]]],
    threads: int,
) -> Iterator[tuple[tuple[int, int], list[Draft | RefusedRow]]]:
    """Yield the drafts and refusals of each row, in order, while threads decode the next rows."""
    window: deque[tuple[tuple[int, int], Future[list[Draft | RefusedRow]]]] = deque()
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        stack.callback(pool.shutdown, cancel_futures=True)
        for position, row in rows:
            window.append((position, pool.submit(reader.read, *row)))
            if len(window) > 3 * threads:
                ready, done = window.popleft()
                yield ready, done.result()
        while window:
            ready, done = window.popleft()
            yield ready, done.result()


@dataclass(frozen=True, slots=True)
class _Sorter:
    """Decides to which split a row belongs, or why it is left out.

    `seen` holds the rows of this import, and `held` holds the rows of the evaluation sets. If
    `keeps_all` is true, duplicates are kept.
    """

    split: str
    held_out: float
    seen: Seen
    held: Seen
    keeps_all: bool

    def place(self, found: Draft | RefusedRow, writer: SplitsWriter) -> None:
        """Add a row to its split, or count why it is left out."""
        refusal = found if isinstance(found, RefusedRow) else self._add(found, writer)
        if refusal is not None:
            writer.counts.refuse(refusal)

    def _add(self, draft: Draft, writer: SplitsWriter) -> RefusedRow | None:
        digest = hashlib.sha256(draft.picture.data).hexdigest()
        sample, image_hash = draft.sample, draft.picture.image_hash
        if self.held.has_image(digest) or self.held.has(sample, image_hash):
            return RefusedRow(sample.sample_id, IN_EVALUATION, sample.question)
        if not self.keeps_all and self.seen.has(sample, image_hash):
            return RefusedRow(sample.sample_id, "duplicate", sample.question)
        is_held_out = int(digest[:8], 16) < self.held_out * 2**32
        added = writer.add(HELD_OUT if is_held_out else self.split, draft, digest)
        self.seen.add(added, image_hash)
        return None
