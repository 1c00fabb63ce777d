"""Caches the image processor's output for each view.

The G episodes of a group share one low-resolution view, and often share crops. The cache saves the
work of processing the same view again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

CACHE_BYTES = 1 << 30
"""The largest total size of cached pixel values, in bytes."""


class RememberingProcessor:
    """A cache around a policy's processor, for `awares.batch.collate`.

    The cache keeps the output for the most recently used views, up to `cache_bytes`. In the setup
    awares-7b, a page of 1,700 x 2,200 pixels takes about 37 MB. The key of a view is a hash of its
    image and of the processor's size limits. Only one thread at a time may use the processor.
    """

    def __init__(self, processor: Any, cache_bytes: int = CACHE_BYTES) -> None:
        self.tokenizer = processor.tokenizer
        self.image_token_id = processor.image_token_id
        self._image_processor = processor.image_processor
        self._cache_bytes, self._held = cache_bytes, 0
        self._views: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()

    def image_processor(
        self, images: Sequence[Image], size: dict[str, int], return_tensors: str
    ) -> dict[str, Tensor]:
        """Return pixel_values (N patches, D values) and image_grid_thw (I images, 3).

        Both follow the order of `images`.
        """
        assert return_tensors == "pt"
        keys = [_key(image, size) for image in images]
        fresh = {
            key: image for key, image in zip(keys, images, strict=True) if key not in self._views
        }
        if fresh:
            self._process(fresh, size)
        found = [self._views[key] for key in keys]
        for key in keys:
            self._views.move_to_end(key)
        while self._held > self._cache_bytes:
            self._held -= self._views.popitem(last=False)[1][0].nbytes
        return {
            "pixel_values": torch.cat([pixels for pixels, _ in found]),
            "image_grid_thw": torch.stack([grid for _, grid in found]),
        }

    def _process(self, fresh: dict[bytes, Image], size: dict[str, int]) -> None:
        done = self._image_processor(images=list(fresh.values()), size=size, return_tensors="pt")
        grids_I3 = done["image_grid_thw"]
        parts = done["pixel_values"].split(grids_I3.prod(1).tolist())
        for key, part, grid in zip(fresh, parts, grids_I3, strict=True):
            # `part` shares the memory of all processed images, and would keep all of it. A copy
            # keeps only its own memory.
            self._views[key] = part.clone(), grid
            self._held += part.nbytes


def _key(image: Image, size: dict[str, int]) -> bytes:
    shape = f"{image.mode} {image.size} {sorted(size.items())}".encode()
    return hashlib.blake2b(
        image.tobytes(), digest_size=16, key=hashlib.blake2b(shape, digest_size=16).digest()
    ).digest()
