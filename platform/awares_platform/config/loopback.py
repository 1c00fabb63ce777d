"""Recognises URLs of this machine. Clients must connect to such a URL without a proxy."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(url: str | None) -> bool:
    """Return whether the host of `url` (scheme://host:port/path) is a loopback address.

    The unspecified addresses 0.0.0.0 and [::] also count, because clients can reach this machine
    through them.

    Example:
        is_loopback("http://127.0.0.1:8000")  # True
        is_loopback("https://s3.example.com")  # False
    """
    try:
        host = urlsplit(url or "").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
