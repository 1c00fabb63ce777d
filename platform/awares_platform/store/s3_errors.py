"""Decides which S3 errors are retried, and translates S3 errors to errors of store/errors.py."""

from botocore import exceptions as boto

from awares_platform.config.store import StoreConfig
from awares_platform.store.errors import (
    AccessDenied,
    MissingBucket,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)

Failure = boto.BotoCoreError | boto.ClientError
FAILURES = (boto.BotoCoreError, boto.ClientError)

_TRANSIENT = (
    boto.ConnectionError,  # The connection was refused or closed, or timed out.
    boto.HTTPClientError,  # The reply timed out or broke off.
    boto.IncompleteReadError,
)
_TRANSIENT_CODES = {
    "408", "429", "500", "502", "503", "504", "InternalError", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
    "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    # 409: two conditional writes collided and neither has succeeded yet.
    "ConditionalRequestConflict", "OperationAborted",
}  # fmt: skip
_FULL_CODES = {"507", "InsufficientStorage", "XMinioStorageFull"}
_FINAL_STATUSES = {501, 505}
"""HTTP statuses that are not retried: the server does not support the call."""
_ABSENT_CODES = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_DENIED_CODES = {
    "401", "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "Forbidden",
    "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
}  # fmt: skip
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
)
_VARIABLES = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOST_CODES = {"412", "PreconditionFailed"}


def is_transient(error: Exception) -> bool:
    """Return whether the call should be retried after `error`."""
    if isinstance(error, boto.ClientError):
        return code(error) in _TRANSIENT_CODES or (
            _status(error) >= 500 and _status(error) not in _FINAL_STATUSES
        )
    return isinstance(error, _TRANSIENT)


def code(error: Failure) -> str:
    """Return S3's error code, or the type name of an exception that carries no reply of S3."""
    return (
        error.response.get("Error", {}).get("Code", "")
        if isinstance(error, boto.ClientError)
        else type(error).__name__
    )


def translate(error: Failure, key: str, config: StoreConfig) -> StoreError:
    """Return the StoreError for a failed call on `key`.

    The message of the error states the s3:// address of the object and, if one is known, a remedy.
    """
    where = f"{config.url}/{key}".rstrip("/")
    server = config.endpoint or "AWS S3"
    reason = code(error)
    if reason == "NoSuchBucket":
        return MissingBucket(
            f"{where}: {server} has no bucket {config.bucket!r}; create it, or correct store.url"
        )
    if reason in _ABSENT_CODES:
        return NotFound(f"{where}: no such object at {server}")
    if reason in _LOST_CODES:
        return PreconditionFailed(
            f"{where}: another writer was first; read it again before writing"
        )
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(f"{where}: no credentials ({error}); set {_VARIABLES}, or AWS_PROFILE")
    if reason in _DENIED_CODES:
        return AccessDenied(
            f"{where}: {server} denies access ({reason}); check {_VARIABLES} "
            "and the bucket's policy"
        )
    if reason in _FULL_CODES:
        return StoreUnavailable(f"{where}: {server} is full ({error}); free space there")
    if is_transient(error):
        return StoreUnavailable(
            f"{where}: {server} unavailable for the whole retry budget of "
            f"{config.retry_budget_s:g} s ({error}); check store.endpoint and that the server "
            "runs, or raise store.retry_budget_s"
        )
    return StoreError(f"{where}: {server} refused the call ({error})")


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
