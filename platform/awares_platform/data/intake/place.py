"""Finds the files of a source, and reads files below a directory, on the local disk or on S3."""

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from awares.errors import DataError
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

MOST_BYTES = 256 << 20
"""An image file with more bytes is refused before it is read."""
_READ_AHEAD = 4 << 20


class SourceFile(Protocol):
    """A file of a source.

    `name` is its path relative to the source. `version` changes if the file changes.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def open(self) -> BinaryIO:
        """Open the file for reading at any position."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on the local disk.

    Example:
        LocalFile(Path("pages/train.jsonl"), "train.jsonl", "20481-1764464400")
    """

    path: Path
    name: str
    version: str

    def open(self) -> BinaryIO:
        return self.path.open("rb")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object on S3.

    Example:
        StoredFile(store, "pages/train.jsonl", "train.jsonl", '"9b2c..."', 20481)
    """

    store: ObjectStore
    key: str
    name: str
    version: str
    size: int

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Ranges(self.store, self.key, self.size), _READ_AHEAD)


class _Ranges(io.RawIOBase):
    """Reads an object in ranges of bytes, so that the whole object is never in memory."""

    def __init__(self, store: ObjectStore, key: str, size: int) -> None:
        self._store, self._key, self._size, self._position = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._size, self._position + len(buffer))
        if end <= self._position:
            return 0
        data = self._store.get_range(self._key, self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def is_stored(source: str) -> bool:
    """Return whether a source is on S3."""
    return source.startswith("s3://")


def files(source: str, config: StoreConfig) -> list[SourceFile]:
    """Return the files of a source, sorted by name.

    A source is one file, or a directory with its subdirectories.

    `config` has the endpoint of S3 sources. Raises DataError if there is no file.
    """
    found = _stored(source, config) if is_stored(source) else _local(source)
    if not found:
        raise DataError(f"{source}: there is no such file, and no directory with files")
    return sorted(found, key=lambda place: place.name)


def _local(source: str) -> list[SourceFile]:
    top = Path(source)
    paths = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return [_local_file(path, top) for path in paths if not _is_hidden(path.relative_to(top))]


def _local_file(path: Path, top: Path) -> LocalFile:
    state = path.stat()
    name = path.name if path == top else path.relative_to(top).as_posix()
    return LocalFile(path, name, f"{state.st_size}-{state.st_mtime_ns}")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _stored(source: str, config: StoreConfig) -> list[SourceFile]:
    store, prefix = bucket_of(source, config)
    found: list[SourceFile] = []
    for entry in store.list(prefix):
        name = entry.key.removeprefix(prefix).lstrip("/") or PurePosixPath(entry.key).name
        whole = entry.key == prefix or not prefix or prefix.endswith("/")
        if (whole or entry.key.startswith(f"{prefix}/")) and not entry.key.endswith("/"):
            found.append(StoredFile(store, entry.key, name, entry.etag, entry.size))
    return found


def bucket_of(address: str, config: StoreConfig) -> tuple[ObjectStore, str]:
    """Return an ObjectStore for the bucket of an s3:// address, and the key in the address.

    Raises DataError if the address names no bucket.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    try:
        place = StoreConfig(**{**config.model_dump(), "url": f"s3://{bucket}"})
    except ValueError as error:
        raise DataError(f"{address}: write s3://bucket/key") from error
    return ObjectStore(place), key


class Root(Protocol):
    """Reads files by paths relative to a directory. No path may lead out of the directory."""

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises DataError if the file is missing, too large, or not below the directory.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalRoot:
    """A directory on the local disk. A symbolic link that leads out of the directory is refused.

    Example:
        LocalRoot(Path("pages")).read("receipts/17.png")
    """

    directory: Path

    def read(self, path: str) -> bytes:
        """Read a file, as `Root.read` describes it."""
        top = self.directory.resolve()
        try:
            file = (top / path).resolve()
            if not file.is_relative_to(top):
                raise DataError(f"{path} leads out of {self.directory}; set imports.root")
            if file.stat().st_size > MOST_BYTES:
                raise DataError(f"{path} has more than {MOST_BYTES} bytes")
            return file.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path} cannot be read in {self.directory}: {reason}") from error


@dataclass(frozen=True, slots=True)
class StoredRoot:
    """The objects below a prefix on S3. `address` is the prefix as an s3:// address.

    Example:
        StoredRoot(store, "pages", "s3://bucket/pages").read("receipts/17.png")
    """

    store: ObjectStore
    prefix: str
    address: str

    def read(self, path: str) -> bytes:
        """Read an object, as `Root.read` describes it. `path` may be an s3:// address."""
        top = self.address.rstrip("/")
        path = path.removeprefix(f"{top}/")
        if is_stored(path) or path.startswith("/") or ".." in path.split("/"):
            raise DataError(f"{path} leads out of {top}; set imports.root")
        key = f"{self.prefix.strip('/')}/{path.removeprefix('./')}".lstrip("/")
        try:
            if self.store.head(key).size > MOST_BYTES:
                raise DataError(f"{path} has more than {MOST_BYTES} bytes")
            return self.store.get(key)
        except NotFound as error:
            raise DataError(f"{path} is missing in {top}") from error


def root_of(root: str, source: str, config: StoreConfig) -> Root:
    """Return a reader for image paths below `root`. If `root` is "", use the source's directory."""
    if not root and is_stored(source):
        is_file = bool(PurePosixPath(source).suffix)
        root = source.rsplit("/", 1)[0] if is_file else source
    if is_stored(root):
        return StoredRoot(*bucket_of(root, config), root)
    top = Path(source)
    return LocalRoot(Path(root) if root else top if top.is_dir() else top.parent)
