"""Reads the sizes of images from the first bytes of their files, without decoding the images."""

import io
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from awares.tokens import Size
from awares_platform.data.dataset import read_split
from awares_platform.data.images import image_key
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

log = logging.getLogger(__name__)

_HEADER = 64 * 1024
_READERS = 16


def sample_sizes(
    store: ObjectStore, digests: Sequence[str], most: int = 512, seed: int = 0
) -> list[Size]:
    """Return the width and height of up to `most` images, drawn with `seed`.

    `digests` are the hashes of the images. A repeated hash counts each time. An image whose size
    cannot be read is left out. The rotation that a file asks for is ignored. Raises StoreError if
    the store fails.
    """
    drawn = random.Random(seed).sample(list(digests), min(most, len(digests)))
    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(readers.map(lambda digest: (digest, _size(store, digest)), set(drawn)))
    return [size for digest in drawn if (size := found[digest])]


def split_sizes(store: ObjectStore, name: str, split: str) -> list[Size]:
    """Return the sizes of some images of a split. Raises DataError if the split is missing."""
    samples = read_split(store, name, split).samples
    return sample_sizes(store, [sample.image for sample in samples])


def _size(store: ObjectStore, digest: str) -> Size | None:
    key = image_key(digest)
    try:
        try:
            return _parse(store.get_range(key, 0, _HEADER))
        except OSError:
            # A long colour profile or preview may come before the size.
            return _parse(store.get(key))
    except (NotFound, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        log.debug("no size of %s: %s", key, error)
        return None


def _parse(data: bytes) -> Size:
    with Image.open(io.BytesIO(data)) as image:
        return image.size
