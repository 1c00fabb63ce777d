"""An image that is an object of its own in the store, under the hash of its bytes."""

import hashlib

from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed


def image_key(digest: str) -> str:
    """Return the key of an image file in the store."""
    return f"images/{digest}"


def put_image(store: ObjectStore, data: bytes) -> str:
    """Store an image file under its hash, and return the hash."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        store.put(image_key(digest), data, if_none_match=True)
    except PreconditionFailed:
        pass  # The store already holds the same bytes.
    return digest
