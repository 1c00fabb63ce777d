from types import SimpleNamespace
from typing import Any

import PIL.Image
import torch

from awares_platform.grpo.pixels import RememberingProcessor

SIZE = {"shortest_edge": 784, "longest_edge": 12544}


class CountingProcessor:
    """A fake image processor that records the number of images of each call.

    The processor makes one patch of every 14 x 14 pixels. All values of a patch equal the red
    value of the image's first pixel.
    """

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(
        self, images: list[PIL.Image.Image], size: dict[str, int], return_tensors: str
    ) -> dict[str, Any]:
        self.given.append(len(images))
        grids = [(1, image.height // 14, image.width // 14) for image in images]
        first = [image.getpixel((0, 0))[0] for image in images]  # pyright: ignore
        parts = [
            torch.full((grid[1] * grid[2], 3), float(value))
            for grid, value in zip(grids, first, strict=True)
        ]
        return {"pixel_values": torch.cat(parts), "image_grid_thw": torch.tensor(grids)}


def square(value: int, side: int = 28) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (side, side), (value, 0, 0))


PATCH_BYTES = 3 * 4


def remembering(
    counting: CountingProcessor, cache_bytes: int = 1000 * PATCH_BYTES
) -> RememberingProcessor:
    return RememberingProcessor(
        SimpleNamespace(tokenizer="t", image_token_id=9, image_processor=counting), cache_bytes
    )


def test_equal_views_are_processed_once_and_returned_in_order() -> None:
    counting = CountingProcessor()
    processor = remembering(counting)
    for expected_calls in ([2], [2]):
        done = processor.image_processor([square(1), square(2, 56), square(1)], SIZE, "pt")
        assert done["pixel_values"][:, 0].tolist() == [1] * 4 + [2] * 16 + [1] * 4
        assert done["image_grid_thw"].tolist() == [[1, 2, 2], [1, 4, 4], [1, 2, 2]]
        assert counting.given == expected_calls
    assert (processor.tokenizer, processor.image_token_id) == ("t", 9)


def test_another_limit_or_size_is_another_view() -> None:
    counting = CountingProcessor()
    processor = remembering(counting)
    processor.image_processor([square(1)], SIZE, "pt")
    processor.image_processor([square(1)], {**SIZE, "longest_edge": 99999}, "pt")
    # This image has the same bytes as the first image but another shape, so it is processed.
    processor.image_processor([PIL.Image.new("RGB", (56, 14), (1, 0, 0))], SIZE, "pt")
    assert counting.given == [1, 1, 1]


def test_the_oldest_views_are_forgotten() -> None:
    counting = CountingProcessor()
    processor = remembering(counting, cache_bytes=2 * 4 * PATCH_BYTES)
    for value in (1, 2, 1, 3, 1, 2):
        processor.image_processor([square(value)], SIZE, "pt")
    # Image 3 evicts image 2, which is the least recently used image then. Image 2 is therefore
    # processed twice, and the other images once.
    assert counting.given == [1] * 4


def test_the_cache_is_bounded_in_bytes_of_real_memory() -> None:
    processor = remembering(CountingProcessor(), cache_bytes=20 * PATCH_BYTES)
    views = [square(value, side=28 if value % 3 else 56) for value in range(1, 12)]
    for start in range(0, len(views), 2):
        processor.image_processor(views[start : start + 2], SIZE, "pt")
    kept = [pixels.untyped_storage() for pixels, _ in processor._views.values()]
    assert len({storage.data_ptr() for storage in kept}) == len(kept) > 1
    assert sum(storage.nbytes() for storage in kept) <= 20 * PATCH_BYTES


def test_views_larger_than_the_cache_are_processed_and_not_kept() -> None:
    counting = CountingProcessor()
    processor = remembering(counting, cache_bytes=PATCH_BYTES)
    for _ in range(2):
        done = processor.image_processor([square(1), square(2)], SIZE, "pt")
        assert done["pixel_values"].shape == (8, 3)
    assert counting.given == [2, 2]
