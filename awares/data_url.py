"""Decodes images in data: URLs (RFC 2397), and tolerates common deviations from the standard."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from awares.errors import DataError

_HEADER = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?);\s*base64\s*,", re.IGNORECASE)
_MOST_HEADER = 512
_KINDS = re.compile(r"image/|application/octet-stream$|application/pdf$|$", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def is_data_url(url: str) -> bool:
    """Return whether `url` is a data: URL, ignoring the case of the scheme."""
    return url[:5].lower() == "data:"


def decode_data_url(url: str) -> bytes:
    """Return the bytes of the image file in a base64 data: URL.

    Raises DataError if the base64 text is broken or the media type is not allowed. Allowed are
    image types, application/octet-stream, application/pdf, and no media type.
    """
    header = _HEADER.match(url[:_MOST_HEADER])
    if header is None or not _KINDS.match(header[1].strip()):
        raise DataError("expected data:image/<type>;base64,<bytes>")
    try:
        payload = url[header.end() :].encode("ascii")
    except UnicodeEncodeError:
        raise DataError("the base64 text is broken: it holds characters beyond ASCII") from None
    if b"%" in payload:
        payload = unquote_to_bytes(payload)
    payload = payload.translate(_URL_SAFE, b" \t\r\n").rstrip(b"=")
    try:
        return base64.b64decode(payload + b"=" * (-len(payload) % 4), validate=True)
    except binascii.Error as error:
        raise DataError(f"the base64 text is broken: {error}") from None
