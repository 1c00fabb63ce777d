"""Counts the bytes of the caches that the processes of a run may fill."""

from dataclasses import dataclass

from awares_platform.config.engine import EngineConfig
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths

VIEWS = 1 << 30
"""The size limit of a learner rank's view cache in bytes, as in awares_platform.grpo.pixels."""
IMAGES = 256 << 20
"""The size limit of a process's image cache in bytes, as in awares_platform.data.images."""


@dataclass(frozen=True, slots=True)
class Caches:
    """The largest sizes of the caches in host memory, in bytes, and the sizes of two entries.

    Example:
        Caches(view=9_800_000, page=37_000_000, processed=2**30)
    """

    view: int
    """One processed low-resolution view."""
    page: int
    """One processed whole image."""
    processed: int
    """Largest size of an engine's cache of processed views (engine.view_cache_gib)."""
    views: int = VIEWS
    """Largest size of a learner rank's cache of processed views."""
    images: int = IMAGES
    """Largest size of a process's cache of decoded images."""


def caches(shape: Geometry, lengths: Lengths, engine: EngineConfig) -> Caches:
    """Return the sizes of the caches and of their entries.

    A processed view has merge**2 patches for each visual token. A patch has v_temporal * patch**2
    pixels of three colours, in float32.
    """
    token = shape.merge**2 * 3 * shape.v_temporal * shape.patch**2 * 4
    return Caches(
        view=lengths.low * token,
        page=lengths.full * token,
        processed=int(engine.view_cache_gib * (1 << 30)),
    )
