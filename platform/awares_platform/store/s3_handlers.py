"""Defines three boto3 event handlers.

`send_at_once` sends the body of a write together with its headers. `send_md5` adds the MD5 digest
to a request that deletes objects. `require_whole` detects truncated replies.
"""

import base64
import hashlib
import re
from io import BytesIO
from typing import Any

from botocore.exceptions import ResponseStreamingError

_RANGE = re.compile(r"bytes (\d+)-(\d+)/")


def send_at_once(params: dict[str, Any], **_: object) -> None:
    """Send the body of a write together with its headers. This is a `before-call` handler.

    botocore would send the body later. If the process is killed in between, SeaweedFS stores an
    empty object.
    """
    if isinstance(params.get("body"), BytesIO):
        params["body"] = params["body"].getvalue()


def send_md5(params: dict[str, Any], **_: object) -> None:
    """Add the header Content-MD5 to a request. This is a `before-call` handler.

    botocore sends a newer checksum instead. Several S3 servers refuse to delete objects without
    Content-MD5.
    """
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode("ascii")


def require_whole(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Raise ResponseStreamingError, a transient error, for a truncated reply.

    This is a `before-parse` handler. botocore itself parses a truncated listing as an empty one.
    """
    headers, body = response_dict["headers"], response_dict["body"]
    status = response_dict["status_code"]
    if operation_model.http["method"] == "HEAD" or status in (204, 304):
        return
    length = headers.get("content-length")
    if length is None and "transfer-encoding" not in headers:
        raise ResponseStreamingError(error="the reply does not say how long it is")
    if length is not None and isinstance(body, bytes) and len(body) != int(length):
        raise ResponseStreamingError(error=f"the reply ends after {len(body)} of {length} bytes")
    if status < 300 and body == b"" and _has_result_in_body(operation_model):
        raise ResponseStreamingError(error=f"the reply to {operation_model.name} is empty")
    covered = _RANGE.match(headers.get("content-range", ""))
    if status == 206 and covered and length is not None:
        if int(covered[2]) - int(covered[1]) + 1 != int(length):
            raise ResponseStreamingError(error=f"the reply has {length} bytes for {covered[0]}")


def _has_result_in_body(operation_model: Any) -> bool:
    """Return whether a reply to the operation has a result in its body, not only in headers."""
    output = operation_model.output_shape
    return output is not None and any(
        "location" not in member.serialization for member in output.members.values()
    )
