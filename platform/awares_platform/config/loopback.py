"""Which addresses are on this machine. No proxy can reach those, so none is asked."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(url: str | None) -> bool:
    """Whether `url` (scheme://host:port/path) names this machine by a loopback address.

    The unspecified addresses 0.0.0.0 and [::] count, because a client reaches this machine by them.

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
