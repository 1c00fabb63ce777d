"""S3 messages that go and come whole, where botocore leaves a gap."""

import re
from io import BytesIO
from typing import Any

from botocore.exceptions import ResponseStreamingError

_RANGE = re.compile(r"bytes (\d+)-(\d+)/")


def send_at_once(params: dict[str, Any], **_: object) -> None:
    """botocore's `before-call` handler of writes: the body leaves right behind the headers.

    botocore would send the headers, wait for "100 Continue", then send the body: a round trip more, and a process that is killed meanwhile
    leaves a request without a body, which SeaweedFS takes for one of an empty body.
    """
    if isinstance(params.get("body"), BytesIO):
        params["body"] = params["body"].getvalue()


def require_whole(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """botocore's `before-parse` handler. Raises ResponseStreamingError, which is_transient, if the reply was cut on its way.

    By itself botocore checks the length of streamed bodies only, and takes a cut listing for an empty one.

    A streamed body is yet to be read; then this checks the headers, and botocore counts the bytes against them.
    """
    headers, status, body = (
        response_dict["headers"],
        response_dict["status_code"],
        response_dict["body"],
    )
    if operation_model.http["method"] == "HEAD" or status in (204, 304):
        return
    length = headers.get("content-length")
    if length is None and "transfer-encoding" not in headers:
        raise ResponseStreamingError(error="the reply does not say how long it is")
    if length is not None and isinstance(body, bytes) and len(body) != int(length):
        raise ResponseStreamingError(error=f"the reply ends after {len(body)} of {length} bytes")
    if status < 300 and body == b"" and _speaks(operation_model):
        raise ResponseStreamingError(error=f"the reply to {operation_model.name} is empty")
    covered = _RANGE.match(headers.get("content-range", ""))
    if (
        status == 206
        and covered
        and length is not None
        and int(covered[2]) - int(covered[1]) + 1 != int(length)
    ):
        raise ResponseStreamingError(error=f"the reply has {length} bytes for {covered[0]}")


def _speaks(operation_model: Any) -> bool:
    """Whether the operation's result stands in the reply's body, not only in its headers."""
    output = operation_model.output_shape
    return output is not None and any(
        "location" not in member.serialization for member in output.members.values()
    )
