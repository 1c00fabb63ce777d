"""Caches the processed views of a learner rank.

The G episodes of a group share one low-resolution view, and often share crops. A view that is in
the cache needs neither its image nor the image processor.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from awares.pixels import Prepare
from awares.view import ImageView

CACHE_BYTES = 1 << 30
"""The largest total size of cached pixel values, in bytes."""

_Processed = tuple[Tensor, Tensor]
"""The pixel values (N patches, D values) and the grid (3,) of one view."""


class ViewCache:
    """Keeps the most recently used processed views, up to `cache_bytes`. The cache is thread-safe.

    A page of 1,700 x 2,200 pixels takes about 37 MB in the setup "awares-7b". All calls must use
    the same image processor and limits.

    Example:
        cache = ViewCache()
        batch = collate(episodes, images, processor, limits, remember=cache)
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.cache_bytes = cache_bytes
        self._held = 0
        self._views: OrderedDict[ImageView, _Processed] = OrderedDict()
        # `_lock` guards the fields above. `_processing` is held while a thread processes views.
        self._lock, self._processing = threading.Lock(), threading.Lock()

    def __call__(self, wanted: Sequence[ImageView], make: Prepare) -> tuple[Tensor, Tensor]:
        """Return the pixel values (N, D) and the grids (I, 3) of the `wanted` views, in order.

        `make` processes the views that are not in the cache.
        """
        found = self._get(wanted, make)
        return (
            torch.cat([found[view][0] for view in wanted]),
            torch.stack([found[view][1] for view in wanted]),
        )

    def fill(self, wanted: Sequence[ImageView], make: Prepare) -> int:
        """Put the `wanted` views into the cache, and return their total size in bytes."""
        return sum(values_ND.nbytes for values_ND, _ in self._get(wanted, make).values())

    def unknown(self, wanted: Sequence[ImageView]) -> list[ImageView]:
        """Return the views that are not in the cache."""
        with self._lock:
            return [view for view in wanted if view not in self._views]

    def _get(self, wanted: Sequence[ImageView], make: Prepare) -> dict[ImageView, _Processed]:
        found = self._known(wanted)
        if all(view in found for view in wanted):
            return found
        with self._processing:
            # Another thread may have processed some of the views meanwhile.
            found = self._known(wanted)
            fresh = [view for view in dict.fromkeys(wanted) if view not in found]
            return found | (self._process(fresh, make) if fresh else {})

    def _known(self, wanted: Sequence[ImageView]) -> dict[ImageView, _Processed]:
        with self._lock:
            found = {view: self._views[view] for view in wanted if view in self._views}
            for view in found:
                self._views.move_to_end(view)
            return found

    def _process(self, fresh: list[ImageView], make: Prepare) -> dict[ImageView, _Processed]:
        values_ND, grids_I3 = make(fresh)
        parts = values_ND.split(grids_I3.prod(1).tolist())
        # Each part is a slice of one tensor with all processed views, and keeps the whole tensor
        # in memory. A copy of the part does not.
        copies = [(part.clone(), grid) for part, grid in zip(parts, grids_I3, strict=True)]
        made = dict(zip(fresh, copies, strict=True))
        with self._lock:
            self._views |= made
            self._held += sum(part.nbytes for part, _ in copies)
            while self._held > self.cache_bytes:
                self._held -= self._views.popitem(last=False)[1][0].nbytes
        return made
