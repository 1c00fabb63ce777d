"""Shares the keys of a private S3 server with all processes of a run.

A session writes the server's address and keys to a file that only this user can read. It sets the
environment variable AWARES_STORE_KEYS to the path of this file. Jobs, Ray workers and engines
inherit the variable.

The keys are used only for the private server. The AWS environment variables stay unchanged, because
they hold the user's keys for other servers.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

VARIABLE = "AWARES_STORE_KEYS"


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
        if not path or not endpoint:
            return None
        try:
            keys = cls(**json.loads(Path(path).read_text("utf-8")))
        except FileNotFoundError:  # The session deletes the file when the server stops.
            return None
        return keys if keys.endpoint == endpoint else None

    @contextmanager
    def shared(self, directory: Path) -> Iterator[dict[str, str]]:
        """Write the keys to a file in `directory`, and delete the file at the end of the block.

        Yield the environment variable that other processes must inherit: {VARIABLE: path}.
        """
        path = directory.resolve() / "keys.json"
        path.unlink(missing_ok=True)  # A killed run may have left this file.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
            yield {VARIABLE: str(path)}
        finally:
            path.unlink(missing_ok=True)
