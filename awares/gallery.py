"""Renders each view of an image once, and renders views of large images in a thread."""

import asyncio
from collections.abc import Sequence

from PIL.Image import Image

from awares.images import render
from awares.view import View

# An image with fewer pixels is rendered without a thread, because rendering it takes less time than
# starting a thread.
_THREAD_PIXELS = 1 << 18


class Gallery:
    """The rendered views of an original image (RGB), shared by episodes on this image.

    Example:
        gallery = Gallery(image)
        low, crop = await gallery.show((View(None), View((0, 0, 512, 384))), ratio=0.5)
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self._rendered: dict[tuple[View, float], asyncio.Future[Image] | Image] = {}

    async def show(self, views: Sequence[View], ratio: float) -> tuple[Image, ...]:
        """Return the pixels of the views, as `awares.images.render` computes them with this ratio.

        A thread renders the views of a large image, while the event loop goes on.
        """
        return tuple([await self._show(view, ratio) for view in views])

    async def _show(self, view: View, ratio: float) -> Image:
        if (view, ratio) not in self._rendered:
            self._rendered[view, ratio] = self._render(view, ratio)
        rendered = self._rendered[view, ratio]
        # Several episodes may wait for one rendering. If one episode is cancelled, the rendering
        # goes on.
        return rendered if isinstance(rendered, Image) else await asyncio.shield(rendered)

    def _render(self, view: View, ratio: float) -> asyncio.Future[Image] | Image:
        if self.image.width * self.image.height < _THREAD_PIXELS:
            return render(self.image, view, ratio)
        return asyncio.ensure_future(asyncio.to_thread(render, self.image, view, ratio))
