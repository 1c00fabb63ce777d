"""Compares a node's clock with the clock of the object store."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError

from awares_platform.cli.doctor.finding import Finding
from awares_platform.store import ObjectStore

CLOCK = "clock"
WARN_S, FAIL_S = 5.0, 60.0
_REMEDY = "Synchronise the node's clock with NTP, because S3 refuses requests with a wrong time."


def check_clock(store: ObjectStore, node: str) -> list[Finding]:
    """Compare this node's clock with the Date header of a reply of the store.

    The Date header has a resolution of one second. Even a reply that denies access has this header.
    """
    sent = time.time()
    date = _date(store)
    received = time.time()
    metrics: dict[str, Any] = {"node": node}
    if date is None:
        return [Finding(CLOCK, "skip", "the store has sent no time", metrics=metrics)]
    skew = (sent + received) / 2 - (parsedate_to_datetime(date).timestamp() + 0.5)
    metrics["skew_s"] = round(skew, 1)
    error = max(0.0, abs(skew) - 0.5 - (received - sent) / 2)
    if error < WARN_S:
        return [Finding(CLOCK, "pass", "agrees with the store's clock", metrics=metrics)]
    side = "ahead of" if skew > 0 else "behind"
    found = f"{abs(skew):.0f} s {side} the store's clock"
    status = "fail" if error >= FAIL_S else "warn"
    return [Finding(CLOCK, status, found, _REMEDY, metrics=metrics)]


def _date(store: ObjectStore) -> str | None:
    try:
        return store.date()
    except BotoCoreError:
        return None  # The check of the store reports this fault.
