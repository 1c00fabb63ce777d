"""Gives Ray Train the object store as a pyarrow file system.

    Ray Train -- pyarrow.fs --> StoreHandler --> ObjectStore -- boto3 --> S3

Arrow's own S3 client is not used, because it may give up after 2 seconds. It also reads other
environment variables than boto3. Here every call has the retries and the errors of ObjectStore.

Paths have the form bucket/prefix/key, as in Arrow's own S3 file system. S3 has no directories. A
path is a directory if an object's key begins with the path and a slash.
"""

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound


def filesystem(config: StoreConfig) -> PyFileSystem:
    """Return the store as a pyarrow file system, which can be pickled."""
    return PyFileSystem(StoreHandler(ObjectStore.from_config(config)))


def store_of(files: Any) -> ObjectStore:
    """Return the store behind a file system that `filesystem` has returned."""
    return files.handler.store


class StoreHandler(FileSystemHandler):
    """Carries out the operations of a pyarrow file system on an ObjectStore.

    A written file is held in memory until it is closed. Operations that Ray Train does not use are
    refused.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        config = store.config
        self._root = "/".join(part for part in (config.bucket, config.prefix) if part)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreHandler) and self.store.config == other.store.config

    def __hash__(self) -> int:
        return hash(self._root)

    def key(self, path: str) -> str:
        """Return the key of `path` in the store, or "" for the root of the store.

        Raises ValueError if the path is not below store.url.
        """
        whole = path.strip("/")
        if whole != self._root and not whole.startswith(f"{self._root}/"):
            raise ValueError(f"{path} is not below store.url={self.store.config.url}")
        return whole.removeprefix(self._root).strip("/")

    def get_type_name(self) -> str:
        return "awares-store"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Iterable[str]) -> list[FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> FileInfo:
        key = self.key(path)
        try:
            return (
                FileInfo(path, FileType.File, size=self.store.head(key).size)
                if key
                else _folder(path)
            )
        except NotFound:
            inside = next(iter(self.store.list(f"{key}/")), None)
            return _folder(path) if inside else FileInfo(path, FileType.NotFound)

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        base, key = selector.base_dir.rstrip("/"), self.key(selector.base_dir)
        below = f"{key}/" if key else ""
        found: dict[str, FileInfo] = {}
        for entry in self.store.list(below):
            *parents, name = entry.key.removeprefix(below).split("/")
            for depth in range(1, len(parents) + 1):
                path = "/".join((base, *parents[:depth]))
                found.setdefault(path, _folder(path))
            if name:
                path = "/".join((base, *parents, name))
                found[path] = FileInfo(path, FileType.File, size=entry.size)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(f"{base}: no such directory in the store")
        return [info for path, info in found.items() if selector.recursive or _is_in(path, base)]

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing but check the path, because S3 has no directories."""
        self.key(path)

    def delete_dir(self, path: str) -> None:
        self.store.delete_prefix(f"{self.key(path)}/")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.delete_dir(path)

    def delete_file(self, path: str) -> None:
        self.store.delete(self.key(path))

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(_Reader(self.store, self._existing(path)), mode="r")

    def _existing(self, path: str) -> str:
        key = self.key(path)
        if not self.store.exists(key):
            raise FileNotFoundError(f"{self.store.config.url}/{key}: no such object")
        return key

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        return pa.PythonFile(_Writer(self.store, self.key(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        raise io.UnsupportedOperation(f"{path}: S3 cannot append to an object")

    def copy_file(self, source: str, target: str) -> None:
        raise io.UnsupportedOperation(f"{source}: Ray Train copies no stored file")

    def move(self, source: str, target: str) -> None:
        raise io.UnsupportedOperation(f"{source}: Ray Train moves no stored file")

    def delete_root_dir_contents(self) -> None:
        raise io.UnsupportedOperation(f"{self._root}: the whole store is never deleted")


class _Reader(io.RawIOBase):
    """Reads byte ranges of an object. A read fails if the object has changed since opening."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._info, self._at = store, store.head(key), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, self._info.size)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._info.size if size < 0 else min(self._at + size, self._info.size)
        start, self._at = self._at, max(self._at, end)
        info = self._info
        return self._store.get_range(info.key, start, max(start, end), if_match=info.etag)


class _Writer(io.BytesIO):
    """Collects the content of an object, and writes the object when the file is closed."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        super().__init__()
        self._store, self._key = store, key

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            self._store.put(self._key, content)


def _folder(path: str) -> FileInfo:
    return FileInfo(path, FileType.Directory)


def _is_in(path: str, base: str) -> bool:
    return "/" not in path.removeprefix(f"{base}/")
