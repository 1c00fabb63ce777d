"""Shares the keys of a private S3 server with all processes of a run.

The process that starts the server writes its address and keys to a file that only this user can
read. Every session on the directory sets the environment variable AWARES_STORE_KEYS to the path of
this file. Jobs, Ray workers and engines inherit the variable.

The keys are used only for the private server. The AWS environment variables stay unchanged, because
they hold the user's keys for other servers.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

VARIABLE = "AWARES_STORE_KEYS"
FILE = "keys.json"
"""Name of the file in the directory of the private server."""


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """The two keys of the private server at `endpoint`.

    Example:
        StoreKeys("http://127.0.0.1:20417", "a1b2...", "c3d4...")
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    @classmethod
    def of(cls, endpoint: str | None) -> Self | None:
        """Return the keys of the private server at `endpoint`, or None for any other server."""
        path = os.environ.get(VARIABLE)
        keys = cls.read(Path(path)) if path and endpoint else None
        return keys if keys and keys.endpoint == endpoint else None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the keys in a file, or None if the file does not exist."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:  # The file is deleted when the server stops.
            return None

    def write(self, path: Path) -> None:
        """Write the keys to a file that only this user can read. No reader sees a partial file."""
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)  # A killed process may have left this file.
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        new.replace(path)


def variable(directory: Path) -> dict[str, str]:
    """Return the environment variable through which processes find the keys in `directory`."""
    return {VARIABLE: str(directory.resolve() / FILE)}
