"""Finds out whether a store obeys conditional writes.

Some S3 servers ignore the headers If-None-Match and If-Match. With such a server, two jobs could
both take the lease of a run, and neither would notice the other one.
"""

from collections.abc import Callable

from awares_platform.store.bucket import Bucket
from awares_platform.store.errors import PreconditionFailed

_NO_ETAG = f'"{"0" * 32}"'


def ignored_conditions(store: Bucket, key: str, data: bytes, *, stale: str = _NO_ETAG) -> list[str]:
    """Return the names of the headers that the store ignores.

    The function writes `data` twice to the object `key`, which must exist, with conditions that are
    not met. A correct store refuses both writes. Raises StoreError if a write fails otherwise.
    """
    writes: dict[str, Callable[[], str]] = {
        "If-None-Match": lambda: store.put(key, data, if_none_match=True),
        "If-Match": lambda: store.put(key, data, if_match=stale),
    }
    return [name for name, write in writes.items() if not _is_refused(write)]


def _is_refused(write: Callable[[], str]) -> bool:
    try:
        write()
    except PreconditionFailed:
        return True
    return False
