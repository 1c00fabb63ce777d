"""Prepares the views of the next batch while the rank trains on the current batch.

    learner:  begin --> update, publish --> the next batch --> end --> collate
                |                                                        |
    thread:     +--> upcoming views --decode, render, process--> ViewCache

If a view is not ready in time, `collate` prepares it itself, as it would without this thread.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from PIL.Image import Image

from awares.pixels import Prepare
from awares.view import ImageView
from awares_platform.grpo.pixels import ViewCache

log = logging.getLogger(__name__)

_PART_PIXELS = 2_000_000
"""The thread prepares images together until they have this number of pixels. This can be one large
page or many small images: a page of 1,700 x 2,200 has 3.7 million pixels."""


class Warmer:
    """Fills `cache` in a thread. `images` and `prepare` are the functions that `collate` uses.

    The views of the next batch fill at most half of the cache.

    Example:
        warmer = Warmer(cache, images, prepare)
        warmer.begin(lambda: ray.get(upcoming))
    """

    def __init__(self, cache: ViewCache, images: Callable[[str], Image], prepare: Prepare) -> None:
        self._cache, self._images, self._prepare = cache, images, prepare
        self._ended = threading.Event()

    def begin(self, upcoming: Callable[[], Sequence[ImageView]]) -> None:
        """Start to prepare the views that `upcoming` returns. The thread calls `upcoming`.

        An error in the thread is logged. `collate` raises it again if the batch needs the view.
        """
        self.end()
        self._ended = threading.Event()
        # A daemon thread does not keep the process alive while it waits for the controller.
        threading.Thread(
            target=self._run, args=(upcoming, self._ended), name="warming", daemon=True
        ).start()

    def end(self) -> None:
        """Tell the thread to stop after the images that it prepares at present. Do not wait."""
        self._ended.set()

    def _run(self, upcoming: Callable[[], Sequence[ImageView]], ended: threading.Event) -> None:
        held = 0
        try:
            for part in _parts(upcoming()):
                if held > self._cache.cache_bytes // 2:
                    return
                for view in self._cache.unknown(part):
                    if ended.is_set():
                        return
                    # Decode the image before `fill`, which makes other threads wait for the cache.
                    self._images(view.image)
                held += self._cache.fill(part, self._prepare)
        except Exception as error:
            log.warning("the views of the next batch are not prepared ahead: %s", error)


def _parts(views: Sequence[ImageView]) -> Iterator[list[ImageView]]:
    """Cut `views` into parts whose images together have at least _PART_PIXELS pixels.

    The last part may have fewer. Adjacent views of one image stay in the same part.
    """
    part: list[ImageView] = []
    pixels, last = 0, ""
    for one in views:
        if one.image != last:
            if pixels >= _PART_PIXELS:
                yield part
                part, pixels = [], 0
            pixels += one.image_size[0] * one.image_size[1]
            last = one.image
        part.append(one)
    if part:
        yield part
