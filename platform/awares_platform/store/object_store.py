"""Defines the object store of a run: a Bucket that also transfers files and directories."""

from pathlib import Path

from awares_platform.store import multipart
from awares_platform.store.bucket import Bucket, condition
from awares_platform.store.errors import NotFound, StoreError


class ObjectStore(Bucket):
    """Reads and writes objects and files below one prefix of a bucket.

    An ObjectStore is thread-safe and can be pickled.

    Example:
        store = ObjectStore.from_config(config.store)
        etag = store.put("runs/mini/HEAD", b"1", if_none_match=True)
        store.put("runs/mini/HEAD", b"2", if_match=etag)  # fails if another writer was first
    """

    def upload_file(
        self,
        path: str | Path,
        key: str,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload a file and return its etag. A large file is uploaded in parallel parts.

        `if_none_match` and `if_match` have the same meaning as for `put`. The server checks these
        conditions when the upload is completed.
        """
        return multipart.upload(self, Path(path), key, condition(if_none_match, if_match))

    def download_file(self, key: str, path: str | Path) -> None:
        """Download an object in parallel ranges. `path` appears only once the file is complete."""
        multipart.download(self, key, Path(path))

    def upload_directory(self, directory: str | Path, prefix: str) -> int:
        """Upload every file below `directory` to `prefix`/. Return the number of files."""
        files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
        for path in files:
            self.upload_file(path, f"{prefix.rstrip('/')}/{path.relative_to(directory).as_posix()}")
        return len(files)

    def download_directory(self, prefix: str, directory: str | Path) -> int:
        """Download every object below `prefix`/ into `directory`. Return the number of objects.

        Raises NotFound if no object is below `prefix`/. Raises StoreError if an object's key would
        lead to a path outside `directory`.
        """
        folder = f"{prefix.rstrip('/')}/"
        entries = [*self.list(folder)]
        if not entries:
            raise NotFound(f"{self.config.url}/{folder}: no objects there")
        for entry in entries:
            name = entry.key.removeprefix(folder)
            if ".." in name.split("/") or name.startswith("/"):
                raise StoreError(
                    f"{self.config.url}/{entry.key}: its name leads out of {directory}; "
                    "remove it from the store"
                )
            self.download_file(entry.key, Path(directory) / name)
        return len(entries)
