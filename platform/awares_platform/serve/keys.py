"""Reads the API keys of the endpoint, and finds the key that a request carries.

The keys file is JSON. It holds the SHA-256 of each key, and never a key itself:

    {"keys": [{"name": "team-a", "sha256": "9f86d081...", "requests_per_minute": 600}]}

Two entries may have the same name. Thus a team can use its new key before its old key is removed.
A key has 256 random bits, so a plain SHA-256 protects it as well as a slow hash does.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from awares.errors import ConfigError
from awares_platform.serve.errors import RequestError

log = logging.getLogger(__name__)

PREFIX = "aw-"
"""The first characters of every key. Secret scanners recognise leaked keys by this prefix."""
LOOK_S = 1.0
"""The shortest time between two checks whether the keys file has changed, in seconds."""
_ROTATION = "the endpoint goes on with the keys that it read before"


class ApiKey(BaseModel):
    """One entry of the keys file. Entries with the same name share their limits.

    `sha256` is the hash of the key in UTF-8. A limit of None means no limit.

    Example:
        ApiKey(name="team-a", sha256=hashed("aw-..."), visual_tokens_per_day=5_000_000)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    visual_tokens_per_day: Annotated[int, Field(ge=1)] | None = None

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """The limits of this entry: requests per minute, and visual tokens per day."""
        return self.requests_per_minute, self.visual_tokens_per_day


class KeysFile(BaseModel):
    """The content of the keys file.

    Example:
        KeysFile(keys=(ApiKey(name="team-a", sha256=hashed("aw-...")),))
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...]

    @model_validator(mode="after")
    def entries_agree(self) -> "KeysFile":
        """Refuse two entries with the same key, and entries of one name with different limits."""
        if len({key.sha256 for key in self.keys}) < len(self.keys):
            raise ValueError("two entries have the same sha256: give each entry its own key")
        limits: dict[str, tuple[int | None, int | None]] = {}
        for key in self.keys:
            if limits.setdefault(key.name, key.limits) != key.limits:
                raise ValueError(f"the entries of {key.name!r} have different limits")
        return self

    @classmethod
    def read(cls, path: Path) -> "KeysFile":
        """Read the keys file. Raises ConfigError, which states the wrong entry and the remedy."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"serve.keys_file {path}: {error.strerror or error}: make it with "
                f"`awares keys add {path} NAME`"
            ) from None
        except ValidationError as error:
            raise ConfigError(f"serve.keys_file {path}: {refused_field(error)}") from None

    def write(self, path: Path) -> None:
        """Replace the keys file. Only the owner of the file may read it."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        content = self.model_dump(exclude_none=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        beside.replace(path)


class Keyring:
    """The keys that a replica accepts. A changed keys file takes effect without a restart.

    `token` is a single key without limits. `path` is the keys file. If both are None, the endpoint
    needs no key.

    Raises ConfigError if the file is unusable at the start. If the file becomes unusable later, the
    keys that were read before stay valid.

    Example:
        Keyring(token="secret").caller("Bearer secret").name  # "token"
    """

    def __init__(
        self,
        token: str | None = None,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        own = (ApiKey(name="token", sha256=hashed(token)),) if token else ()
        self._own, self._path, self._clock = own, path, clock
        self._looked = clock()
        self._seen = _stamp(path)
        self._read = KeysFile.read(path).keys if path else ()

    def caller(self, authorization: str) -> ApiKey | None:
        """Return the API key in an Authorization header, or None if the endpoint needs no key.

        Raises RequestError (401) if the header has no known key.
        """
        if not self._own and self._path is None:
            return None
        self._follow()
        scheme, _, given = authorization.partition(" ")
        digest, found = hashed(given.strip()), None
        # Compare every entry, so that the time of a call does not reveal which entry matches.
        for key in (*self._own, *self._read):
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None or scheme.lower() != "bearer":
            raise RequestError(
                "send the header Authorization: Bearer <key>", status=401, code="unauthorized"
            )
        return found

    def _follow(self) -> None:
        """Read the keys file again if it has changed. Check at most once in `LOOK_S` seconds."""
        if self._path is None or self._clock() - self._looked < LOOK_S:
            return
        self._looked = self._clock()
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._read = KeysFile.read(self._path).keys
        except ConfigError as error:
            log.error("%s; %s", error, _ROTATION)
        else:
            log.info("read %d keys from %s", len(self._read), self._path)


def new_key() -> str:
    """Return a new random key of 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """Return the SHA-256 of a key as 64 hex digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Return the inode, modification time and size of a file, or None if there is no file.

    If a mounted Secret changes, Kubernetes replaces the file, and the inode changes.
    """
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else None


def refused_field(error: ValidationError) -> str:
    """Return the name of the first wrong field, and what is wrong with it.

    The text omits the wrong value, because a user may have entered a key there by mistake.
    """
    first = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    text = f"{place.removeprefix('.')}: {first['msg'].removeprefix('Value error, ')}"
    return text.removeprefix(": ")
