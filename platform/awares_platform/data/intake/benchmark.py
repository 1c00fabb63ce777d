"""Imports the published files of a benchmark as the test split of a separate data set."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from awares.errors import DataError
from awares.evaluation.benchmarks import BENCHMARKS, Benchmark
from awares_platform.config.data import DataConfig
from awares_platform.config.imports import ImportsConfig
from awares_platform.config.store import StoreConfig
from awares_platform.data.dataset import Split, read_split
from awares_platform.data.intake import job
from awares_platform.data.intake.place import files, is_stored
from awares_platform.store import ObjectStore

SPLIT = "test"
_PREFIX = "benchmark-"


def dataset_of(name: str) -> str:
    """Return the name of the data set that holds a benchmark."""
    return f"{_PREFIX}{name}"


def splits_of(names: Iterable[str] = tuple(BENCHMARKS)) -> list[tuple[str, str]]:
    """Return the pair (data set name, split name) for each benchmark in `names`."""
    return [(dataset_of(name), SPLIT) for name in names]


def import_benchmark(name: str, root: str, data: DataConfig, store: ObjectStore) -> str:
    """Import a benchmark from a directory of published data sets, unless it is imported already.

    Return a sentence about missing or refused rows, or "". Raises DataError if `root` does not hold
    the benchmark.
    """
    benchmark = BENCHMARKS[name]
    request = job.ImportRequest(dataset_of(name), locate(root, benchmark, store.config), SPLIT)
    settings = ImportsConfig(benchmark=benchmark.name)
    counts = job.run(request, settings, data, store).counts
    found = sum(counts.rows.values())
    if found == benchmark.rows:
        return ""
    refused = f", and {counts.refused} were refused" if counts.refused else ""
    return f"{name} has {found:,} of its {benchmark.rows:,} published rows{refused}"


def locate(root: str, benchmark: Benchmark, config: StoreConfig) -> str:
    """Return the place of a benchmark's files below `root`, a directory or an s3:// prefix.

    The directory below `root` may have the id of the data set (lmms-lab/ChartQA), the last part
    of the id (ChartQA), or the name of the benchmark (chartqa).

    Raises DataError if there are no files.
    """
    names = list(_names(benchmark))
    for name in names:
        for folder in filter(None, (benchmark.folder and f"{name}/{benchmark.folder}", name)):
            place = f"{root.rstrip('/')}/{folder}"
            if _has_files(place, config):
                return place
    raise DataError(
        f"evaluate.benchmark_root = {root!r} holds no {benchmark.name}: download "
        f"{benchmark.ids[0]} to {root.rstrip('/')}/{benchmark.ids[0]}"
    )


def _names(benchmark: Benchmark) -> Iterator[str]:
    yield from benchmark.ids
    yield benchmark.ids[0].rpartition("/")[2]
    yield benchmark.name


def _has_files(place: str, config: StoreConfig) -> bool:
    try:
        # On S3, the prefix "ChartQA" would also find "ChartQA2", so add a slash.
        return bool(files(f"{place}/" if is_stored(place) else place, config))
    except (DataError, OSError):
        return False


def read_benchmark(store: ObjectStore, name: str, limit: int | None) -> Split:
    """Read an imported benchmark. Each sample's id begins with the benchmark's name."""
    split = read_split(store, dataset_of(name), SPLIT, limit)
    named = [replace(one, sample_id=f"{name}/{one.sample_id}") for one in split.samples]
    return Split(tuple(named), split.columns, split.faults)
