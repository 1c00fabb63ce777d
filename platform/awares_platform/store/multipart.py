"""Transfers large files in parallel parts, so that only a few parts are in memory at once."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from awares_platform.store.bucket import Bucket
from awares_platform.store.errors import NotFound, PreconditionFailed, StoreError
from awares_platform.store.s3_errors import FAILURES

log = logging.getLogger(__name__)
PART_BYTES = 8 * 2**20
MOST_PARTS = 10_000
"""The largest number of parts that S3 accepts for one object."""
THREADS = 4
_UPLOAD = "awares-upload"
"""The metadata key of a random token, by which an uploader recognises the object that it wrote.

The etag cannot serve for this: if KMS encrypts the object, the etag is not the data's MD5 digest.
"""


def upload(store: Bucket, path: Path, key: str, condition: dict[str, str]) -> str:
    """Upload a file and return its etag.

    The server checks `condition` (IfNoneMatch, IfMatch) when the upload is completed.
    """
    size = path.stat().st_size
    if size <= PART_BYTES:
        return store.put(
            key,
            path.read_bytes(),
            if_none_match="IfNoneMatch" in condition,
            if_match=condition.get("IfMatch"),
        )
    token = uuid4().hex
    request = {**store.address(key), **store.encryption, "Metadata": {_UPLOAD: token}}
    reply = store.call(key, lambda: store.client.create_multipart_upload(**request))
    upload_id = reply["UploadId"]

    def send(part: tuple[int, int, int]) -> dict[str, Any]:
        return _upload_part(store, path, key, upload_id, *part)

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(pool.map(send, _parts(size)))
        return _complete(store, key, (upload_id, token), parts, condition)
    except BaseException:
        _abort(store, key, upload_id)
        raise


def download(store: Bucket, key: str, path: Path) -> None:
    """Download an object to a temporary file beside `path`, then rename the file to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with partial.open("xb") as file:
            _fetch(store, key, file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _fetch(store: Bucket, key: str, descriptor: int) -> None:
    info = store.head(key)

    def fetch(part: tuple[int, int, int]) -> None:
        _, start, end = part
        data = store.get_range(key, start, end, if_match=info.etag)
        if len(data) != end - start:
            raise StoreError(
                f"{store.config.url}/{key}: bytes {start} to {end} came short; "
                "the object is damaged, write it again"
            )
        os.pwrite(descriptor, data, start)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, _parts(info.size)))


def _parts(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each part, and the offsets of its start and end. Numbers start at 1."""
    length = max(PART_BYTES, -(-size // MOST_PARTS))
    for number, start in enumerate(range(0, size, length), start=1):
        yield number, start, min(start + length, size)


def _upload_part(
    store: Bucket, path: Path, key: str, upload_id: str, number: int, start: int, end: int
) -> dict[str, Any]:
    with path.open("rb") as file:
        data = os.pread(file.fileno(), end - start, start)
    request = {**store.address(key), "UploadId": upload_id, "PartNumber": number, "Body": data}
    reply = store.call(key, lambda: store.client.upload_part(**request))
    return {"PartNumber": number, "ETag": reply["ETag"]}


def _complete(
    store: Bucket,
    key: str,
    upload: tuple[str, str],
    parts: list[dict[str, Any]],
    condition: dict[str, str],
) -> str:
    """Complete the upload and return the object's etag.

    `upload` holds the upload's id and a random token. After a lost reply, a stored object with this
    token proves success. Raises PreconditionFailed if `condition` is not met.
    """
    upload_id, token = upload
    request = {
        **store.address(key),
        "UploadId": upload_id,
        "MultipartUpload": {"Parts": parts},
        **condition,
    }
    attempts = 0

    def complete() -> str:
        nonlocal attempts
        attempts += 1
        return store.client.complete_multipart_upload(**request)["ETag"]

    try:
        return store.call(key, complete)
    except (NotFound, PreconditionFailed) as error:
        exists = store.exists(key)
        if attempts > 1 and exists:
            found = store.call(key, lambda: store.client.head_object(**store.address(key)))
            if found["Metadata"].get(_UPLOAD) == token:
                return found["ETag"]
        if not exists and "IfMatch" in condition:
            raise PreconditionFailed(str(error)) from error
        raise


def _abort(store: Bucket, key: str, upload_id: str) -> None:
    try:
        store.client.abort_multipart_upload(**store.address(key), UploadId=upload_id)
    except FAILURES as error:
        message = "%s/%s: unfinished upload %s stays in the store (%s)"
        log.warning(message, store.config.url, key, upload_id, error)
