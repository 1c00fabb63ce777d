"""Counts the bytes of the caches that the processes of a run may fill."""

from dataclasses import dataclass

from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths

VIEWS = 1 << 30
"""The bytes of views that a learner rank keeps. awares_platform.grpo.pixels has this number."""
IMAGES = 256 << 20
"""The bytes of images that a process keeps. awares_platform.data.images has this number."""
PROCESSED = 4 << 30
"""The bytes of views that an engine keeps. vLLM's mm_processor_cache_gb has this default."""


@dataclass(frozen=True, slots=True)
class Caches:
    """The largest sizes of the caches in host memory, in bytes.

    `view` and `page` are the bytes of one processed low-resolution view and of one processed whole
    image. A learner rank keeps up to `views` bytes of processed views, and an engine `processed`
    bytes. Every process that reads images keeps up to `images` bytes of decoded images.

    Example:
        Caches(view=9.8e6, page=3.7e7, views=2**30, processed=2**32, images=2**28)
    """

    view: int
    page: int
    views: int = VIEWS
    processed: int = PROCESSED
    images: int = IMAGES


def caches(shape: Geometry, lengths: Lengths) -> Caches:
    """Return the sizes of the caches.

    A processed view has merge**2 patches for each visual token. A patch has v_temporal * patch**2
    pixels of three colours, in float32.
    """
    token = shape.merge**2 * 3 * shape.v_temporal * shape.patch**2 * 4
    return Caches(view=lengths.low * token, page=lengths.full * token)
