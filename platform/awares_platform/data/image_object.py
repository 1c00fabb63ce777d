"""Stores an image file as a separate object, whose key ends in the hash of the file."""

import hashlib

from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed


def image_key(digest: str) -> str:
    """Return the store key of the image file with the hash `digest`."""
    return f"images/{digest}"


def put_image(store: ObjectStore, data: bytes) -> str:
    """Store an image file under its hash, and return the hash."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        store.put(image_key(digest), data, if_none_match=True)
    except PreconditionFailed:
        pass  # The store already holds the same bytes.
    return digest
