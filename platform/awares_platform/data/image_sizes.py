"""Reads the sizes of images from the first bytes of their files, without decoding the images."""

import io
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from awares.errors import DataError
from awares.tokens import Size
from awares_platform.config.data import DataConfig
from awares_platform.data.dataset import read_split
from awares_platform.data.images import Images
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

log = logging.getLogger(__name__)

_HEADER = 64 * 1024
_READERS = 16
_UNREADABLE = (DataError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def sample_sizes(
    images: Images, digests: Sequence[str], most: int = 512, seed: int = 0
) -> list[Size]:
    """Return the width and height of up to `most` images, drawn at random with `seed`.

    `digests` are the hashes of all images. A hash that occurs twice can be drawn twice. The result
    leaves out an image whose size cannot be read. The sizes ignore the EXIF rotation of a file.
    Raises StoreError if the store fails.
    """
    drawn = random.Random(seed).sample(list(digests), min(most, len(digests)))
    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(readers.map(lambda digest: (digest, _size(images, digest)), set(drawn)))
    return [size for digest in drawn if (size := found[digest])]


def train_sizes(store: ObjectStore, data: DataConfig) -> list[Size]:
    """Return the sizes of up to 512 images of the train split, drawn at random.

    Raises DataError if the split is missing or has no usable row.
    """
    samples = read_split(store, data.name, "train").samples
    return sample_sizes(Images.of(store, data), [sample.image for sample in samples])


def _size(images: Images, digest: str) -> Size | None:
    try:
        try:
            return _parse(images.head(digest, _HEADER))
        except OSError:
            # A long colour profile or preview may precede the size, so read the whole file.
            return _parse(images.read(digest))
    except (NotFound, *_UNREADABLE) as error:
        log.debug("no size of image %s: %s", digest, error)
        return None


def _parse(data: bytes) -> Size:
    with Image.open(io.BytesIO(data)) as image:
        return image.size
