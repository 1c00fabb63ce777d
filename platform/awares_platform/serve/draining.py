"""Tells the proxies that the endpoint is stopping, and counts the requests they still answer.

    awares serve -- begin ----> GCS <---- draining -- proxy, twice a second
                 -- ongoing --> GCS <---- report ---- proxy, while it drains

The signal and the counts go through the key-value store of Ray's Global Control Service (GCS),
because the job cannot call the proxies of Ray Serve.
"""

from ray.experimental import internal_kv

_SPACE = b"awares-serve"
_DRAINING = b"draining"
_ONGOING = b"ongoing-"


def begin() -> None:
    """Tell all proxies to refuse new requests from now on."""
    internal_kv._internal_kv_put(_DRAINING, b"1", overwrite=True, namespace=_SPACE)


def clear() -> None:
    """Tell all proxies to accept requests. Delete the counts of an earlier endpoint's proxies."""
    internal_kv._internal_kv_del(_DRAINING, namespace=_SPACE)
    internal_kv._internal_kv_del(_ONGOING, del_by_prefix=True, namespace=_SPACE)


def draining() -> bool:
    """Return whether the endpoint is stopping."""
    return bool(internal_kv._internal_kv_exists(_DRAINING, namespace=_SPACE))


def report(proxy: str, count: int) -> None:
    """Report the number of requests that a proxy still answers."""
    key = _ONGOING + proxy.encode()
    internal_kv._internal_kv_put(key, str(count).encode(), overwrite=True, namespace=_SPACE)


def ongoing() -> dict[str, int]:
    """Return the number of requests that each draining proxy still answers."""
    keys = internal_kv._internal_kv_list(_ONGOING, namespace=_SPACE)
    counts = {key: internal_kv._internal_kv_get(key, namespace=_SPACE) for key in keys}
    return {
        key.removeprefix(_ONGOING).decode(): int(count) for key, count in counts.items() if count
    }
