"""What a failed S3 call means: worth another attempt, or one of the errors of awares_platform.errors."""

from botocore import exceptions as boto

from awares_platform.config.store import StoreConfig
from awares_platform.errors import (
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
    boto.ConnectionError,  # refused, closed, timed out while connecting
    boto.HTTPClientError,  # timed out or broken while reading
    boto.IncompleteReadError,
)
_TRANSIENT_CODES = {
    "408", "429", "500", "502", "503", "504", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "ConditionalRequestConflict", "OperationAborted",  # 409: two conditional writes met, neither has won yet
}  # fmt: skip
_FULL_CODES = {"507", "InsufficientStorage", "XMinioStorageFull"}
_NEVER = {501, 505}  # not implemented: no later answer will differ
_ABSENT_CODES = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_DENIED_CODES = {
    "401", "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "Forbidden", "InvalidAccessKeyId", "InvalidToken",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch",
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
    """Whether the same call may succeed later. Only named errors qualify; everything else is final at once."""
    if isinstance(error, boto.ClientError):
        return code(error) in _TRANSIENT_CODES or (
            _status(error) >= 500 and _status(error) not in _NEVER
        )
    return isinstance(error, _TRANSIENT)


def code(error: Failure) -> str:
    """S3's error code, or the name of the failure that kept a call from getting one."""
    return (
        error.response.get("Error", {}).get("Code", "")
        if isinstance(error, boto.ClientError)
        else type(error).__name__
    )


def translate(error: Failure, key: str, config: StoreConfig) -> StoreError:
    """The error to raise for a call on `key` that failed for good; it names s3://bucket/key and the remedy."""
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
            f"{where}: {server} denies access ({reason}); check {_VARIABLES} and the bucket's policy"
        )
    if reason in _FULL_CODES:
        return StoreUnavailable(f"{where}: {server} is full ({error}); free space there")
    if is_transient(error):
        return StoreUnavailable(
            f"{where}: {server} unavailable for the whole retry budget of {config.retry_budget_s:g} s ({error}); "
            "check store.endpoint and that the server runs, or raise store.retry_budget_s"
        )
    return StoreError(f"{where}: {server} refused the call ({error})")


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
