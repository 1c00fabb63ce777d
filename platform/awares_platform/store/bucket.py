"""A bucket: objects in one piece below one prefix of an S3 server, over boto3.

Every call is retried on named transient errors within one total budget. Then it raises an error of
awares_platform.errors that names s3://bucket/key and the remedy. Keys are relative to the prefix.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Self, TypeVar

import stamina
from boto3.session import Session
from botocore.client import Config as ClientConfig
from botocore.exceptions import ClientError

from awares.errors import ConfigError
from awares_platform.config.store import StoreConfig
from awares_platform.errors import NotFound, PreconditionFailed
from awares_platform.store.s3_errors import FAILURES, code, is_transient, translate
from awares_platform.store.s3_messages import require_whole, send_at_once

T = TypeVar("T")
log = logging.getLogger(__name__)
SILENCE_S = 30.0  # of a server that is asked, until the attempt counts as failed; a reply that trickles may take longer
_CREATION = (
    threading.Lock()
)  # boto3 creates clients from shared state that is not thread-safe; clients themselves are


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object; `key` is relative to the store's prefix, `etag` opaque.

    Example:
        ObjectInfo("runs/mini/config.json", 2301, '"9b2c..."')
    """

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """A bucket and prefix. Picklable and thread-safe; each process opens its own connections."""

    config: StoreConfig

    @classmethod
    def from_config(cls, config: StoreConfig) -> Self:
        """The store that `config` names. Connects at first use: `check` says at once whether it answers."""
        if config.endpoint == "local":
            raise ConfigError(
                'store.endpoint="local" names no server yet: call within awares_platform.runtime.session, which starts it'
            )
        return cls(config)

    def check(self) -> None:
        """Raise MissingBucket, AccessDenied or StoreUnavailable if the bucket cannot be used."""
        self.call("", lambda: self.client.list_objects_v2(Bucket=self.config.bucket, MaxKeys=1))

    def put(
        self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object in one piece and return its etag. `if_none_match` writes only if there is none, `if_match` only over that etag.

        Raises PreconditionFailed if another writer was first. A conditional write whose reply was lost counts as ours if the
        object holds exactly these bytes.
        """
        attempts = 0

        def write() -> str:
            nonlocal attempts
            attempts += 1
            return self.client.put_object(
                **self.address(key), Body=data, **condition(if_none_match, if_match)
            )["ETag"]

        try:
            return self.call(key, write)
        except (PreconditionFailed, NotFound) as error:
            if attempts > 1 and self.exists(key):
                stored, etag = self.get_with_etag(key)
                if stored == data:
                    return etag
            raise PreconditionFailed(str(error)) from error

    def get(self, key: str) -> bytes:
        """An object's bytes. Raises NotFound."""
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """An object's bytes and its etag, for a later `put(if_match=etag)`. Raises NotFound."""

        def read() -> tuple[bytes, str]:
            response = self.client.get_object(**self.address(key))
            return response["Body"].read(), response["ETag"]

        return self.call(key, read)

    def get_range(self, key: str, start: int, end: int, *, if_match: str | None = None) -> bytes:
        """Bytes start to end (exclusive) of an object; like a slice, shorter where the object is. Raises NotFound."""
        if not 0 <= start <= end:
            raise ValueError(f"{key}: no such byte range: {start} to {end}")
        if start == end:
            return b""

        def read() -> bytes:
            try:
                response = self.client.get_object(
                    **self.address(key),
                    Range=f"bytes={start}-{end - 1}",
                    **condition(False, if_match),
                )
                return response["Body"].read()
            except ClientError as error:
                if code(error) in ("416", "InvalidRange"):
                    return b""
                raise

        return self.call(key, read)

    def head(self, key: str) -> ObjectInfo:
        """Size and etag of an object. Raises NotFound."""
        try:
            response = self.call(key, lambda: self.client.head_object(**self.address(key)))
        except NotFound:
            _ = (
                self._bucket_exists
            )  # a HEAD reply has no body that could tell a missing object from a missing bucket
            raise
        return ObjectInfo(key, response["ContentLength"], response["ETag"])

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, in key order, page by page."""
        request: dict[str, Any] = {"Bucket": self.config.bucket, "Prefix": self._full(prefix)}
        skip = len(self._full(""))
        while True:
            page = self.call(prefix, lambda: self.client.list_objects_v2(**request))
            for entry in page.get("Contents", ()):
                yield ObjectInfo(entry["Key"][skip:], entry["Size"], entry["ETag"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine."""
        self.call(key, lambda: self.client.delete_object(**self.address(key)))

    def delete_prefix(self, prefix: str) -> int:
        """Delete every object whose key begins with `prefix`; returns how many. An empty prefix is refused."""
        if not prefix.strip("/"):
            raise ValueError(f"{self.config.url}: refusing to delete everything; name a prefix")
        deleted = 0
        entries = self.list(prefix)
        while chunk := [*islice(entries, 1000)]:
            self._delete_many(prefix, [entry.key for entry in chunk])
            deleted += len(chunk)
        return deleted

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run one S3 call with the retry budget, its failure translated into ours. `key` is for the message."""
        try:
            for attempt in stamina.retry_context(
                on=is_transient, attempts=None, timeout=self.config.retry_budget_s
            ):
                if attempt.num == 2:
                    log.warning(
                        "%s/%s: no answer; trying again for %g s",
                        self.config.url,
                        key,
                        self.config.retry_budget_s,
                    )
                with attempt:
                    return operation()
        except FAILURES as error:
            raise translate(error, key, self.config) from error
        raise AssertionError("retry_context ends by returning or raising")

    def address(self, key: str) -> dict[str, str]:
        """Bucket and full key, as boto3's parameters."""
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise ValueError(f"{key!r} is no key: write a relative path without '..'")
        return {"Bucket": self.config.bucket, "Key": self._full(key)}

    @cached_property
    def client(self) -> Any:
        """This process's boto3 client."""
        options = ClientConfig(
            connect_timeout=5,
            read_timeout=SILENCE_S,
            retries={"total_max_attempts": 1},  # our own budget retries
            max_pool_connections=32,
            s3={"addressing_style": "path" if self.config.endpoint else "auto"},
            request_checksum_calculation="when_required",  # servers other than AWS's answer the newer checksums variously
            response_checksum_validation="when_required",
        )
        with _CREATION:
            client = Session().client(
                "s3",
                endpoint_url=self.config.endpoint,
                region_name=self.config.region,
                config=options,
            )
        client.meta.events.register("before-parse.s3", require_whole)
        for write in ("PutObject", "UploadPart"):
            client.meta.events.register_first(f"before-call.s3.{write}", send_at_once)
        return client

    @cached_property
    def _bucket_exists(self) -> bool:
        self.check()
        return True

    def _delete_many(self, prefix: str, keys: Sequence[str]) -> None:
        request = {"Objects": [{"Key": self._full(key)} for key in keys], "Quiet": True}

        def delete() -> None:
            reply = self.client.delete_objects(Bucket=self.config.bucket, Delete=request)
            if failures := reply.get(
                "Errors"
            ):  # of single objects, in a reply that as a whole is a success
                raise ClientError({"Error": failures[0]}, "DeleteObjects")

        self.call(prefix, delete)

    def _full(self, key: str) -> str:
        return f"{self.config.prefix}/{key}" if self.config.prefix else key

    def __reduce__(self) -> tuple[type[Self], tuple[StoreConfig]]:
        return type(self), (self.config,)


def condition(if_none_match: bool, if_match: str | None) -> dict[str, str]:
    """boto3's parameters of a conditional call."""
    none_match = {"IfNoneMatch": "*"} if if_none_match else {}
    return none_match | ({"IfMatch": if_match} if if_match else {})
