"""Stores the record of a run's validated versions, so that it survives restarts.

runs/<run>/grpo/validation.json     metrics, the best version, and the versions still to validate
runs/<run>/weights/pins/<version>   prevents the deletion of the version's weights
runs/<run>/snapshots/grpo/v<...>/   the version's training state (training/snapshot.py)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from awares_platform.grpo.validated import DueVersion, Validated
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training import snapshot
from awares_platform.weights.retention import pin, unpin


@dataclass(slots=True)
class ValidationRecord:
    """The validated versions of a run.

    Example:
        ValidationRecord(entries=[validated], best=21)
    """

    entries: list[Validated] = field(default_factory=list)
    """The validated versions, oldest first."""
    best: int | None = None
    """The number of the best version, or None."""
    pending: list[DueVersion] = field(default_factory=list)
    """The versions that are not validated yet."""
    restores: int = 0
    """How often a guard has restored the best version."""

    def found(self, version: int | None) -> Validated | None:
        """Return the validation metrics of a version, or None if it is not validated."""
        return next((one for one in self.entries if one.version == version), None)

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ValidationRecord":
        """Return a record from `values`, the parsed JSON that `to_bytes` has written."""
        return cls(
            [Validated(**one) for one in values["entries"]],
            values["best"],
            [DueVersion(**one) for one in values["pending"]],
            values["restores"],
        )


class Book(Protocol):
    """Reads and writes a run's ValidationRecord. Raises StoreError if the store fails."""

    def read(self) -> ValidationRecord:
        """Return the record, which is empty at the start of a run."""
        ...

    def write(self, record: ValidationRecord) -> None:
        """Replace the record."""
        ...

    def keep(self, version: int) -> None:
        """Keep the weights of a version, even if the version is not published yet."""
        ...

    def drop(self, version: int) -> None:
        """Allow the deletion of a version's weights, and delete its snapshot."""
        ...

    def complete(self, version: int) -> bool:
        """Return whether the snapshot of a version is complete."""
        ...


class StoredBook:
    """The record of a run in the object store."""

    def __init__(self, store: ObjectStore, run: str) -> None:
        self._store, self._run = store, run

    def read(self) -> ValidationRecord:
        """Return the record, which is empty at the start of a run."""
        return read_record(self._store, self._run)

    def write(self, record: ValidationRecord) -> None:
        """Replace the record."""
        self._store.put(_key(self._run), record.to_bytes())

    def keep(self, version: int) -> None:
        """Pin a version."""
        pin(self._store, self._run, version)

    def drop(self, version: int) -> None:
        """Unpin a version and delete its snapshot."""
        unpin(self._store, self._run, version)
        snapshot.delete(self._store, self._run, "grpo", version)

    def complete(self, version: int) -> bool:
        """Return whether all ranks have written the snapshot of a version."""
        return snapshot.complete(self._store, self._run, "grpo", version)


def read_record(store: ObjectStore, run: str) -> ValidationRecord:
    """Return the record of a run, which is empty if the run has validated nothing."""
    try:
        return ValidationRecord.of(json.loads(store.get(_key(run))))
    except NotFound:
        return ValidationRecord()


def _key(run: str) -> str:
    return f"runs/{run}/grpo/validation.json"
