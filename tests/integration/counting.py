"""Provides a store client that counts, for each process, the bytes of its range requests."""

import os
from collections import Counter
from pathlib import Path
from typing import Self

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore


class CountingStore(ObjectStore):
    """A store client that appends a line to the file `log` for each range that it reads.

    The line holds the process id and the number of bytes.
    """

    def __init__(self, config: StoreConfig, log: Path) -> None:
        super().__init__(config)
        self.log = log

    def __reduce__(self) -> tuple[type[Self], tuple[StoreConfig, Path]]:  # type: ignore[override]
        return type(self), (self.config, self.log)

    def get_range(self, key: str, start: int, end: int, *, if_match: str | None = None) -> bytes:
        data = super().get_range(key, start, end, if_match=if_match)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {len(data)}\n")
        return data

    def read(self) -> Counter[int]:
        """Return the number of bytes by process id, summed over the lines of `log`."""
        found: Counter[int] = Counter()
        for line in self.log.read_text().splitlines():
            process, size = map(int, line.split())
            found[process] += size
        return found
