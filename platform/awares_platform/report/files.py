"""Finds the files of a run, first in the run's local directory and then in the store."""

from pathlib import Path

from awares.errors import DataError
from awares_platform.config.run import RunConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

JOBS = ("curate", "evaluate", "grpo", "serve", "sft")
"""The jobs that have their own directory in a run."""


class RunFiles:
    """Finds a file by its path within the run.

    If only the store has the file, the object downloads it to the directory `cache`.

    Example:
        RunFiles(store, Path("runs"), "mini", cache)("evaluate/results.json")
    """

    def __init__(self, store: ObjectStore, directory: Path, name: str, cache: Path) -> None:
        self._store = store
        self._local = directory / name
        self._key = f"runs/{name}"
        self._cache = cache

    def __call__(self, relative: str) -> Path:
        """Return the local path of a file.

        If neither the run's directory nor the store has the file, the returned path does not exist.
        """
        local, copy = self._local / relative, self._cache / relative
        if local.exists() or copy.exists():
            return local if local.exists() else copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._store.download_file(f"{self._key}/{relative}", copy)
        except NotFound:
            pass  # The job that writes this file has not run.
        return copy


def require_run(store: ObjectStore, run: RunConfig) -> None:
    """Raise DataError if the run does not exist. The error lists the runs that exist."""
    if _is_run(run.directory / run.name) or any(store.list(f"runs/{run.name}/")):
        return
    local = {path.name for path in run.directory.glob("*") if _is_run(path)}
    stored = {info.key.split("/")[1] for info in store.list("runs/")}
    known = ", ".join(sorted(local | stored))
    raise DataError(
        f"run {run.name!r} is neither in {run.directory} nor in {store.config.url}; "
        + (f"runs that exist: {known}" if known else "no run exists there yet")
    )


def _is_run(directory: Path) -> bool:
    return any((directory / job).is_dir() for job in JOBS)
