"""Reads and writes single objects below one prefix of an S3 bucket, with boto3.

Keys are relative to the prefix. Transient errors are retried for at most store.retry_budget_s
seconds. An error states the object's s3:// address.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Self, TypeVar

import stamina
from botocore.client import Config as ClientConfig
from botocore.exceptions import ClientError

from awares.errors import ConfigError
from awares_platform.config.store import StoreConfig
from awares_platform.store.client import connect
from awares_platform.store.errors import NotFound, PreconditionFailed, StoreError
from awares_platform.store.foreign_replies import refuse_foreign
from awares_platform.store.s3_errors import EXPIRED_CODES, FAILURES, code, is_transient, translate
from awares_platform.store.s3_handlers import require_whole, send_at_once, send_md5

T = TypeVar("T")
log = logging.getLogger(__name__)
SILENCE_S = 30.0
"""An attempt fails if the server sends no byte for this number of seconds."""
_NO_BULK_CODES = {"MissingContentMD5", "NotImplemented", "501", "MethodNotAllowed", "405"}
"""Error codes of stores that cannot delete several objects by one request."""
_DELETING_THREADS = 8


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The key, size in bytes and etag of an object. `key` is relative to the store's prefix.

    Example:
        ObjectInfo("runs/mini/config.json", 2301, '"9b2c..."')
    """

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """Gives access to the objects below one prefix of a bucket.

    A Bucket can be pickled and is thread-safe. Each process opens its own connections.
    """

    config: StoreConfig
    limit_s: float = math.inf
    """Seconds for which a call is retried, unless `store.retry_budget_s` is smaller."""

    @classmethod
    def from_config(cls, config: StoreConfig) -> Self:
        """Return the store of `config`. The first operation connects to the server.

        Raises ConfigError if store.endpoint is still "local", which names no running server.
        """
        if config.endpoint == "local":
            raise ConfigError(
                'store.endpoint="local" names no server yet: call within '
                "awares_platform.runtime.session, which starts it"
            )
        return cls(config)

    def hurried(self, limit_s: float) -> Self:
        """Return a copy of this store that retries each call for at most `limit_s` seconds."""
        return type(self)(self.config, min(limit_s, self.limit_s))

    def check(self) -> None:
        """Raise MissingBucket, AccessDenied or StoreUnavailable if the bucket cannot be used."""
        self.call("", lambda: self.client.list_objects_v2(Bucket=self.config.bucket, MaxKeys=1))

    def put(
        self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object and return its etag.

        With `if_none_match`, the object must not exist. With `if_match`, it must have this etag.
        Raises PreconditionFailed if the condition is not met. If a reply was lost, an object whose
        content is `data` counts as written.
        """
        attempts = 0

        def write() -> str:
            nonlocal attempts
            attempts += 1
            return self.client.put_object(
                **self.address(key),
                Body=data,
                **self.encryption,
                **condition(if_none_match, if_match),
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
        """Return the content of an object. Raises NotFound if there is no object."""
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Return the content and the etag of an object. Raises NotFound if there is no object."""

        def read() -> tuple[bytes, str]:
            response = self.client.get_object(**self.address(key))
            return response["Body"].read(), response["ETag"]

        return self.call(key, read)

    def get_range(self, key: str, start: int, end: int, *, if_match: str | None = None) -> bytes:
        """Return the bytes from `start` to `end` (exclusive), or fewer if the object is shorter.

        Raises NotFound if there is no object. If `if_match` is given and is not the object's etag,
        the method raises PreconditionFailed.
        """
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
        """Return the size and the etag of an object. Raises NotFound if there is no object."""
        try:
            response = self.call(key, lambda: self.client.head_object(**self.address(key)))
        except NotFound:
            # A HEAD reply has no body, so it does not tell whether the object or the bucket is
            # missing. `_bucket_exists` raises MissingBucket if the bucket is missing.
            _ = self._bucket_exists
            raise
        return ObjectInfo(key, response["ContentLength"], response["ETag"])

    def exists(self, key: str) -> bool:
        """Return whether the object exists."""
        try:
            self.head(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, in key order."""
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
        """Delete an object if it exists."""
        self.call(key, lambda: self.client.delete_object(**self.address(key)))

    def delete_prefix(self, prefix: str) -> int:
        """Delete every object whose key begins with `prefix`. Return the number of deleted objects.

        Raises ValueError for an empty prefix.
        """
        if not prefix.strip("/"):
            raise ValueError(f"{self.config.url}: refusing to delete everything; name a prefix")
        deleted = 0
        entries = self.list(prefix)
        while chunk := [*islice(entries, 1000)]:
            self._delete_many(prefix, [entry.key for entry in chunk])
            deleted += len(chunk)
        return deleted

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run one S3 call with retries. If all attempts fail, raise a StoreError about `key`."""
        budget = min(self.config.retry_budget_s, self.limit_s)
        try:
            for attempt in stamina.retry_context(on=is_transient, attempts=None, timeout=budget):
                if attempt.num == 2:
                    log.warning("%s/%s: no answer; retrying for %g s", self.config.url, key, budget)
                with attempt:
                    return self._with_renewed_credentials(operation)
        except FAILURES as error:
            raise translate(error, key, self.config, budget) from error
        raise AssertionError("retry_context ends by returning or raising")

    def _with_renewed_credentials(self, operation: Callable[[], T]) -> T:
        """Run one S3 call. If the credentials have expired, repeat the call with a new client.

        The new client reads ~/.aws/credentials again. boto3 itself renews only credentials of
        roles.
        """
        try:
            return operation()
        except ClientError as error:
            if code(error) not in EXPIRED_CODES:
                raise
            self.__dict__.pop("client", None)
            return operation()

    def address(self, key: str) -> dict[str, str]:
        """Return the bucket and the full key as boto3 parameters.

        Raises ValueError if `key` is empty or absolute, or has a part "..".
        """
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise ValueError(f"{key!r} is no key: write a relative path without '..'")
        return {"Bucket": self.config.bucket, "Key": self._full(key)}

    @cached_property
    def client(self) -> Any:
        """The boto3 client of this process."""
        options = ClientConfig(
            connect_timeout=5,
            read_timeout=SILENCE_S,
            # The method `call` does the retries, so boto3 must make only one attempt.
            retries={"total_max_attempts": 1},
            max_pool_connections=32,
            s3={"addressing_style": self._addressing()},
            # Not every S3 server supports the newer checksums of AWS.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = connect(self.config.endpoint, self.config.region, options)
        # The two wildcards make this handler run before botocore's own handler, which changes the
        # status 200 of a web page to 500.
        client.meta.events.register("before-parse.*.*", refuse_foreign)
        client.meta.events.register("before-parse.s3", require_whole)
        client.meta.events.register_first("before-call.s3.DeleteObjects", send_md5)
        for write in ("PutObject", "UploadPart"):
            client.meta.events.register_first(f"before-call.s3.{write}", send_at_once)
        return client

    @property
    def encryption(self) -> dict[str, str]:
        """The boto3 parameters of a write that ask the server to encrypt the object."""
        if self.config.encryption == "bucket":
            return {}
        key = {"SSEKMSKeyId": self.config.kms_key} if self.config.kms_key else {}
        return {"ServerSideEncryption": self.config.encryption, **key}

    def _addressing(self) -> str:
        if self.config.addressing == "auto" and self.config.endpoint:
            return "path"
        return self.config.addressing

    def date(self) -> str | None:
        """Send a request to the store, and return the Date header of the reply, or None.

        The reply may be an error, such as "access denied". Raises botocore's BotoCoreError if the
        store does not answer.
        """
        try:
            reply = self.client.list_objects_v2(Bucket=self.config.bucket, MaxKeys=1)
        except ClientError as error:
            reply = error.response
        return reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")

    @cached_property
    def _bucket_exists(self) -> bool:
        self.check()
        return True

    def _delete_many(self, prefix: str, keys: Sequence[str]) -> None:
        """Delete objects by one request, or one by one if the store does not support that."""
        request = {"Objects": [{"Key": self._full(key)} for key in keys], "Quiet": True}

        def delete() -> None:
            reply = self.client.delete_objects(Bucket=self.config.bucket, Delete=request)
            # Even a successful reply may list objects that could not be deleted.
            if failures := reply.get("Errors"):
                raise ClientError({"Error": failures[0]}, "DeleteObjects")

        try:
            self.call(prefix, delete)
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or code(cause) not in _NO_BULK_CODES:
                raise
            with ThreadPoolExecutor(_DELETING_THREADS) as pool:
                list(pool.map(self.delete, keys))

    def _full(self, key: str) -> str:
        return f"{self.config.prefix}/{key}" if self.config.prefix else key

    def __reduce__(self) -> tuple[type[Self], tuple[StoreConfig, float]]:
        return type(self), (self.config, self.limit_s)


def condition(if_none_match: bool, if_match: str | None) -> dict[str, str]:
    """Return the boto3 parameters for the two conditions that `Bucket.put` describes."""
    none_match = {"IfNoneMatch": "*"} if if_none_match else {}
    return none_match | ({"IfMatch": if_match} if if_match else {})
