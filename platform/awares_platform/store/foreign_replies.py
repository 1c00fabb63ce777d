"""Defines a boto3 event handler that refuses replies which no S3 server sends.

A wrong store.endpoint may lead to a web server or a login page, whose replies botocore takes for
empty listings or missing objects.
"""

import re
from typing import Any

from awares_platform.store.s3_errors import ForeignReply, is_temporary

_WITH_ETAG = {"GetObject", "HeadObject", "PutObject", "UploadPart"}
"""Operations whose successful replies have the header ETag."""
_ROOT = re.compile(rb"<([A-Za-z][\w:.-]*)[\s/>]")
_S3_ROOTS = (b"result", b"error", b"errorresponse")
"""The root element of each XML reply of S3 has a name with one of these endings, in lower case."""
_SHOWN = 80


def refuse_foreign(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Raise ForeignReply for a reply that no S3 server sends. This is a `before-parse` handler.

    A reply with a temporary error status such as 503 is accepted, because it may come from a proxy
    in front of S3.
    """
    status = response_dict["status_code"]
    if is_temporary(status):
        return
    name, headers, body = operation_model.name, response_dict["headers"], response_dict["body"]
    page = body if isinstance(body, bytes) and _is_foreign(body) else b""
    # Every S3 server sends x-amz- headers. A redirect without them leads to a web page.
    astray = 300 <= status < 400 and not any(key.lower().startswith("x-amz-") for key in headers)
    if page or astray or (status < 300 and name in _WITH_ETAG and "etag" not in headers):
        raise ForeignReply(operation=name, status=status, text=_text(page))


def _is_foreign(body: bytes) -> bool:
    """Return whether a body cannot be XML of S3, not even truncated XML."""
    text = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.startswith(b"<"):
        return bool(text)
    root = _ROOT.search(text)
    return text[:9].lower() == b"<!doctype" or bool(
        root and not root[1].lower().endswith(_S3_ROOTS)
    )


def _text(page: bytes) -> str:
    """Return the first words of a web page, without HTML tags and enclosed in parentheses."""
    words = re.sub(rb"<[^>]*>", b" ", page[:4096]).decode("utf-8", "replace").split()
    return f" ({' '.join(words)[:_SHOWN].strip()!r})" if words else ""
