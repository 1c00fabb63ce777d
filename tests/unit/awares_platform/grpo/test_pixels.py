"""Tests the cache of processed views, with one thread and with several."""

import threading
from collections.abc import Sequence

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLProcessor

from awares.batch import collate
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.demonstration import demonstration
from awares.mini import POLICY
from awares.sample import Label, Sample
from awares.tokens import VisionLimits
from awares.view import ImageView, View
from awares_platform.grpo.pixels import ViewCache

PATCH_BYTES = 3 * 4
LOW = View()


class CountingMaker:
    """A fake image processor that makes one patch of every 14 x 14 pixels of a view.

    All values of a patch equal the number of the view's image.
    """

    def __init__(self) -> None:
        # The number of views in each call.
        self.given: list[int] = []

    def __call__(self, views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
        self.given.append(len(views))
        grids = [(1, view.image_size[1] // 14, view.image_size[0] // 14) for view in views]
        parts = [
            torch.full((grid[1] * grid[2], 3), float(view.image))
            for view, grid in zip(views, grids, strict=True)
        ]
        return torch.cat(parts), torch.tensor(grids)


def square(value: int, side: int = 28, view: View = LOW) -> ImageView:
    return ImageView(str(value), (side, side), view)


def test_equal_views_are_processed_once_and_returned_in_order() -> None:
    make, cache = CountingMaker(), ViewCache()
    for expected_calls in ([2], [2]):
        values_ND, grids_I3 = cache([square(1), square(2, 56), square(1)], make)
        assert values_ND[:, 0].tolist() == [1] * 4 + [2] * 16 + [1] * 4
        assert grids_I3.tolist() == [[1, 2, 2], [1, 4, 4], [1, 2, 2]]
        assert make.given == expected_calls


def test_another_view_or_size_is_another_entry() -> None:
    make, cache = CountingMaker(), ViewCache()
    for one in (square(1), square(1, view=View((0, 0, 14, 14))), square(1, 56), square(2)):
        cache([one], make)
    assert make.given == [1, 1, 1, 1]


def test_the_oldest_views_are_forgotten() -> None:
    make, cache = CountingMaker(), ViewCache(cache_bytes=2 * 4 * PATCH_BYTES)
    for value in (1, 2, 1, 3, 1, 2):
        cache([square(value)], make)
    # The cache holds two views. View 3 evicts view 2, the least recently used one, so view 2 is
    # processed twice.
    assert make.given == [1] * 4


def test_the_cache_is_bounded_in_bytes_of_real_memory() -> None:
    make, cache = CountingMaker(), ViewCache(cache_bytes=20 * PATCH_BYTES)
    views = [square(value, side=28 if value % 3 else 56) for value in range(1, 12)]
    for start in range(0, len(views), 2):
        cache(views[start : start + 2], make)
    kept = [values_ND.untyped_storage() for values_ND, _ in cache._views.values()]
    assert len({storage.data_ptr() for storage in kept}) == len(kept) > 1
    assert sum(storage.nbytes() for storage in kept) <= 20 * PATCH_BYTES


def test_views_larger_than_the_cache_are_processed_and_not_kept() -> None:
    make, cache = CountingMaker(), ViewCache(cache_bytes=PATCH_BYTES)
    for _ in range(2):
        values_ND, _ = cache([square(1), square(2)], make)
        assert values_ND.shape == (8, 3)
    assert make.given == [2, 2]


def test_a_thread_waits_for_a_view_that_another_thread_processes() -> None:
    make, cache = CountingMaker(), ViewCache()
    cache([square(1)], make)
    processing, may_end = threading.Event(), threading.Event()

    def slow(views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
        processing.set()
        assert may_end.wait(10), "the test must set `may_end` within 10 seconds"
        return make(views)

    filling = threading.Thread(target=cache.fill, args=([square(2)], slow))
    filling.start()
    assert processing.wait(10)
    # View 1 is in the cache, so this call does not wait for view 2.
    assert cache([square(1)], make)[0][:, 0].tolist() == [1] * 4
    found: list[Tensor] = []
    asking = threading.Thread(
        target=lambda: found.append(cache([square(1), square(2)], make)[0][:, 0])
    )
    asking.start()
    asking.join(0.05)
    assert asking.is_alive() and make.given == [1]
    may_end.set()
    asking.join(10)
    filling.join(10)
    assert found[0].tolist() == [1] * 4 + [2] * 4
    assert make.given == [1, 1]


def test_a_failure_leaves_the_cache_usable() -> None:
    def broken(views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
        raise OSError("damaged")

    make, cache = CountingMaker(), ViewCache()
    with pytest.raises(OSError, match="damaged"):
        cache.fill([square(1)], broken)
    assert cache.fill([square(1), square(1)], make) == 4 * PATCH_BYTES
    assert make.given == [1]


def test_a_batch_from_the_cache_equals_a_batch_without_one() -> None:
    processor = Qwen2_5_VLProcessor.from_pretrained(POLICY)
    chat, limits = ChatFormat(processor.tokenizer), VisionLimits(min_pixels=784)
    page = Image.effect_mandelbrot((140, 112), (-2, -1.5, 1, 1.5), 80).convert("RGB")
    direct = Sample("a", "f0", "colour?", "red", label=Label.LR)
    called = Sample("b", "f0", "digit?", "7", label=Label.HR, crops=(CropId.RIGHT, CropId.ALL))
    items = [demonstration(sample, chat, page.size) for sample in (direct, called, direct)]
    opened: list[str] = []

    def images(digest: str) -> Image.Image:
        opened.append(digest)
        return page

    cache = ViewCache()
    expected = collate(items, lambda _: page, processor, limits)
    for _ in range(2):
        batch = collate(items, images, processor, limits, remember=cache)
        torch.testing.assert_close(vars_of(batch), vars_of(expected), rtol=0, atol=0)
    # The items have three distinct views. The second batch opens no image.
    assert opened == ["f0"] * 3


def vars_of(batch: object) -> dict[str, Tensor]:
    return {name: getattr(batch, name) for name in batch.__dataclass_fields__}  # pyright: ignore
