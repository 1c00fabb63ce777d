"""Reads the sizes of images from the first bytes of their files, without decoding the images."""

import io
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import ExifTags, Image

from awares.errors import DataError
from awares.png import without_texts
from awares.tokens import Size
from awares_platform.config.data import DataConfig
from awares_platform.data.dataset import read_split
from awares_platform.data.images import Images
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

log = logging.getLogger(__name__)

_HEADER = 64 * 1024
# One thread for each connection in the store's connection pool.
_READERS = 32
_SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations with which `awares.images.decode` swaps width and height."""
_UNREADABLE = (DataError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def sample_sizes(
    images: Images, digests: Sequence[str], most: int = 512, seed: int = 0
) -> list[Size]:
    """Return the width and height of up to `most` images, drawn at random with `seed`.

    `digests` has one image hash per sample, and can thus contain a hash several times. Unreadable
    images are left out.

    Raises StoreError if the store fails.
    """
    drawn = random.Random(seed).sample(list(digests), min(most, len(digests)))
    found = read_sizes(images, drawn)
    return [found[digest] for digest in drawn if digest in found]


def read_sizes(
    images: Images, digests: Iterable[str], finished: Callable[[], object] = lambda: None
) -> dict[str, Size]:
    """Return a dict from the hash of each image to its width and height after decoding.

    `finished` is called after each image. Unreadable images are left out.

    Raises StoreError if the store fails.
    """
    found: dict[str, Size] = {}
    distinct = list(dict.fromkeys(digests))
    with ThreadPoolExecutor(_READERS) as readers:
        sizes = readers.map(lambda digest: _size(images, digest), distinct)
        for digest, size in zip(distinct, sizes, strict=True):
            if size:
                found[digest] = size
            finished()
    return found


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
    with Image.open(io.BytesIO(without_texts(data))) as image:
        width, height = image.size
        # Of a photo that is stored sideways, Pillow swaps width and height only for TIFF files.
        if image.format != "TIFF" and _orientation(image) in _SIDEWAYS:
            return height, width
        return width, height


def _orientation(image: Image.Image) -> int | None:
    # Call the base class's method, because the method of Pillow's PNG class decodes the pixels.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation)
