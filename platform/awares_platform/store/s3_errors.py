"""Decides which S3 errors are retried, and translates S3 errors to errors of store/errors.py."""

import time
from email.utils import parsedate_to_datetime

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


class ForeignReply(boto.BotoCoreError):
    """A server has sent a reply that no S3 server sends."""

    fmt = "{operation} got a reply with status {status}{text}"


_TRANSIENT = (
    boto.ConnectionError,  # The connection was refused or closed, or timed out.
    boto.HTTPClientError,  # The reply timed out or broke off.
    boto.IncompleteReadError,
)
_TRANSIENT_CODES = {
    "408", "429", "500", "502", "503", "504", "InternalError", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
    "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    # Status 409: another write of the same object was in progress.
    "ConditionalRequestConflict", "OperationAborted",
}  # fmt: skip
_FULL_CODES = {"507", "InsufficientStorage", "XMinioStorageFull"}
_FINAL_STATUSES = {501, 505}
"""HTTP statuses that are not retried: the server does not support the call."""
_BUSY_STATUSES = {408, 429}
_ABSENT_CODES = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_DENIED_CODES = {
    "401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden",
    "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
}  # fmt: skip
_SKEWED_CODE = "RequestTimeTooSkewed"
_UNEXPLAINED_CODES = {"403", "Forbidden", "SignatureDoesNotMatch"}
"""Codes that a server may send instead of `_SKEWED_CODE`.

The reply to a HEAD request, for example, has no body, which would contain a more exact code.
"""
_MOST_SKEW_S = 900.0
"""S3 refuses a request if the clocks of client and server differ by over this many seconds."""
EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
)
_VARIABLES = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_UNTRUSTED, _PLAIN = "its certificate is not trusted", "it speaks plain HTTP"
_NO_BUNDLE = "the certificates of your CA cannot be read"
_TLS_SIGNS = {
    "CERTIFICATE_VERIFY_FAILED": _UNTRUSTED,
    "No such file": _NO_BUNDLE,
    "NO_CERTIFICATE_OR_CRL_FOUND": _NO_BUNDLE,
    "WRONG_VERSION_NUMBER": _PLAIN,
    "RECORD_LAYER_FAILURE": _PLAIN,
}
"""Maps a part of an error message of OpenSSL to a TLS fault that no retry mends."""
_REMEDIES = {
    _UNTRUSTED: "set AWS_CA_BUNDLE to a file with the certificates of your CA, or pods.caBundle of "
    "the chart, and check the host in store.endpoint",
    _NO_BUNDLE: "check the file that AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE names",
    _PLAIN: "write store.endpoint with http://",
}
_LOST_CODES = {"412", "PreconditionFailed"}


def is_transient(error: Exception) -> bool:
    """Return whether the call should be retried after `error`."""
    if isinstance(error, boto.ClientError):
        return code(error) in _TRANSIENT_CODES or is_temporary(_status(error))
    return isinstance(error, _TRANSIENT) and not _tls_fault(error)


def is_temporary(status: int) -> bool:
    """Return whether an HTTP status says that the server cannot answer at present."""
    return status in _BUSY_STATUSES or (status >= 500 and status not in _FINAL_STATUSES)


def code(error: Failure) -> str:
    """Return the error code in S3's reply, or the type name of an exception without a reply."""
    return (
        error.response.get("Error", {}).get("Code", "")
        if isinstance(error, boto.ClientError)
        else type(error).__name__
    )


def translate(error: Failure, key: str, config: StoreConfig, budget_s: float) -> StoreError:
    """Return the StoreError for a call on `key` that was retried for `budget_s` seconds.

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
    if reason in EXPIRED_CODES:
        return AccessDenied(
            f"{where}: the credentials for {server} have expired ({reason}); renew them, or use a "
            "role, which boto3 renews"
        )
    if isinstance(error, boto.ClientError) and _is_skewed(error):
        return AccessDenied(
            f"{where}: the clock of this machine {_difference(error)} that of {server}, which "
            f"therefore denies access ({reason}); synchronise this clock with NTP"
        )
    if reason in _DENIED_CODES:
        return AccessDenied(
            f"{where}: {server} denies access ({reason}); check {_VARIABLES} "
            "and the bucket's policy"
        )
    if reason in _FULL_CODES:
        return StoreUnavailable(f"{where}: {server} is full ({error}); free space there")
    if isinstance(error, ForeignReply):
        return StoreError(
            f"{where}: what answers at {server} is no S3 server ({error}); set store.endpoint to "
            "the address of the S3 API, and check the proxies on the way"
        )
    if fault := _tls_fault(error):
        return StoreError(f"{where}: no TLS connection to {server} ({fault}); {_REMEDIES[fault]}")
    if is_transient(error):
        return _unavailable(error, f"{where}: {server}", config, budget_s)
    return StoreError(f"{where}: {server} refused the call ({error})")


def _unavailable(
    error: Failure, subject: str, config: StoreConfig, budget_s: float
) -> StoreUnavailable:
    remedy = "check store.endpoint and that the server runs"
    if budget_s < config.retry_budget_s:
        return StoreUnavailable(f"{subject} unavailable for {budget_s:g} s ({error}); {remedy}")
    return StoreUnavailable(
        f"{subject} unavailable for the whole retry budget of {budget_s:g} s ({error}); {remedy}, "
        "or raise store.retry_budget_s"
    )


def _tls_fault(error: Failure) -> str:
    """Return the TLS fault that `error` reports (a key of _REMEDIES), or "" if it reports none."""
    if not isinstance(error, boto.SSLError):
        return ""
    return next((fault for sign, fault in _TLS_SIGNS.items() if sign in str(error)), "")


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _is_skewed(error: boto.ClientError) -> bool:
    """Return whether the server refused a request because this machine's clock is wrong."""
    if code(error) == _SKEWED_CODE:
        return True
    return code(error) in _UNEXPLAINED_CODES and abs(_skew_s(error) or 0.0) > _MOST_SKEW_S


def _difference(error: boto.ClientError) -> str:
    """Return in words how this machine's clock differs: "is 1,200 s behind", for example."""
    skew = round(_skew_s(error) or 0.0)
    if not skew:
        return "differs from"
    return f"is {abs(skew):,} s {'ahead of' if skew > 0 else 'behind'}"


def _skew_s(error: boto.ClientError) -> float | None:
    """Return by how many seconds this machine's clock is ahead of the Date header of the reply.

    Return None if the reply has no readable Date header.
    """
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None
