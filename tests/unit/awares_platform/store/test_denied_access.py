"""Tests that an error about denied access says whether the clock or the keys are wrong."""

import time
from email.utils import formatdate

import pytest
from botocore.exceptions import ClientError

from awares_platform.config.store import StoreConfig
from awares_platform.store.errors import AccessDenied
from awares_platform.store.s3_errors import translate

CONFIG = StoreConfig(url="s3://awares/x", endpoint="http://store:9000")
CLOCK, KEYS = "the clock of this machine", "check AWS_ACCESS_KEY_ID"


def message(code: str, **headers: str) -> str:
    """Return the message about a call that the store has refused with `code` and `headers`."""
    reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPHeaders": headers}}
    found = translate(ClientError(reply, "GetObject"), "key", CONFIG, 1.0)
    assert isinstance(found, AccessDenied)
    return str(found)


def date(ahead_s: float) -> str:
    """Return a Date header of a server that is `ahead_s` seconds ahead of this machine."""
    return formatdate(time.time() + ahead_s, usegmt=True)


@pytest.mark.parametrize(
    ("code", "sent", "words"),
    [
        ("RequestTimeTooSkewed", 7200, f"{CLOCK} is 7,"),
        ("RequestTimeTooSkewed", -3600, "s ahead of that of http://store:9000,"),
        ("RequestTimeTooSkewed", None, f"{CLOCK} differs from that of"),
        ("RequestTimeTooSkewed", "yesterday", f"{CLOCK} differs from that of"),
        ("403", 1200, "s behind that of http://store:9000,"),
        ("SignatureDoesNotMatch", 1200, f"{CLOCK} is 1,"),
        ("403", 60, KEYS),
        ("403", None, KEYS),
        ("SignatureDoesNotMatch", -60, KEYS),
        ("InvalidAccessKeyId", 1200, KEYS),
    ],
)
def test_a_wrong_clock_is_named_and_not_the_keys(
    code: str, sent: int | str | None, words: str
) -> None:
    """`sent` is the text of the Date header, or the server's lead over this machine in seconds."""
    dated = date(sent) if isinstance(sent, int) else sent
    found = message(code, **({} if dated is None else {"date": dated}))
    assert words in found and f"denies access ({code})" in found
    assert (KEYS in found) != ("synchronise this clock with NTP" in found)
