"""Tests the thread that prepares the views of the next batch."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from awares.errors import DataError
from awares.view import ImageView, View
from awares_platform.grpo.pixels import ViewCache
from awares_platform.grpo.warming import Warmer, _parts

PAGE = (1700, 2200)


def page(number: int, box: tuple[int, int, int, int] | None = None) -> ImageView:
    return ImageView(str(number), PAGE, View(box))


def prepare(views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
    """Return one patch of three values for each view."""
    values = [[float(view.image)] * 3 for view in views]
    return torch.tensor(values), torch.tensor([[1, 1, 1]] * len(views))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the thread must finish within 10 seconds"
        time.sleep(0.001)


def threads() -> int:
    return sum(thread.name == "warming" for thread in threading.enumerate())


class Rank:
    """A Warmer and its ViewCache. Records opened images in `opened` and views in `prepared`."""

    def __init__(self, cache_bytes: int = 1 << 20) -> None:
        self.opened: list[str] = []
        self.prepared: list[ImageView] = []
        self.damaged = ""
        self.cache = ViewCache(cache_bytes)
        self.warmer = Warmer(self.cache, self.images, self.prepare)

    def images(self, digest: str) -> Any:
        if digest == self.damaged:
            raise DataError(f"image {digest} is damaged")
        self.opened.append(digest)

    def prepare(self, views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
        for view in views:
            self.images(view.image)
        self.prepared += views
        return prepare(views)

    def collate(self, views: Sequence[ImageView]) -> list[float]:
        return self.cache(views, self.prepare)[0][:, 0].tolist()


def test_the_next_batch_finds_its_views() -> None:
    rank, views = Rank(), [page(1), page(2), page(2, (0, 0, 9, 9))]
    rank.warmer.begin(lambda: views)
    until(lambda: not threads())
    rank.warmer.end()
    opened = list(rank.opened)
    assert rank.prepared == views
    assert rank.collate([page(2), page(1), page(2)]) == [2, 1, 2]
    assert rank.opened == opened, "collate must not open an image again"
    # The thread did not prepare page 3, so `collate` prepares this page itself.
    assert rank.collate([page(3)]) == [3]


def test_a_damaged_image_ends_the_thread_and_not_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rank = Rank()
    rank.damaged = "2"
    with caplog.at_level(logging.WARNING):
        rank.warmer.begin(lambda: [page(1), page(2), page(3)])
        until(lambda: not threads())
    assert "not prepared ahead: image 2 is damaged" in caplog.text
    assert rank.collate([page(1)]) == [1]
    with pytest.raises(DataError, match="image 2 is damaged"):
        rank.collate([page(2)])
    # The next step starts a new thread.
    rank.warmer.begin(lambda: [page(3)])
    until(lambda: page(3) in rank.prepared)


def test_a_lost_controller_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def lost() -> Sequence[ImageView]:
        raise ConnectionError("the controller is gone")

    rank = Rank()
    with caplog.at_level(logging.WARNING):
        rank.warmer.begin(lost)
        until(lambda: not threads())
    assert "the controller is gone" in caplog.text


def test_the_thread_stops_after_the_images_at_hand() -> None:
    rank, asked, may_end = Rank(), threading.Event(), threading.Event()

    def slow(views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
        asked.set()
        assert may_end.wait(10), "the test must set `may_end` within 10 seconds"
        return prepare(views)

    warmer = Warmer(rank.cache, rank.images, slow)
    warmer.begin(lambda: [page(number) for number in range(1, 9)])
    assert asked.wait(10)
    warmer.end()  # This call returns although the thread still works.
    may_end.set()
    until(lambda: not threads())
    assert len(rank.cache._views) < 8


def test_a_thread_that_waits_for_the_controller_does_not_hold_up_the_next() -> None:
    rank, answer = Rank(), threading.Event()

    def late() -> Sequence[ImageView]:
        assert answer.wait(10), "the test must set `answer` within 10 seconds"
        return [page(1)]

    rank.warmer.begin(late)
    rank.warmer.end()
    rank.warmer.begin(lambda: [page(2)])
    until(lambda: rank.prepared == [page(2)])
    answer.set()
    until(lambda: not threads())
    assert rank.prepared == [page(2)]


def test_one_batch_fills_only_half_of_the_cache() -> None:
    """Check that the views of the next batch do not evict all views of the current batch."""
    view_bytes = 3 * 4
    rank = Rank(cache_bytes=8 * view_bytes)
    trained, coming = ([page(start + number) for number in range(9)] for start in (10, 20))
    for views in (trained, coming):
        rank.warmer.begin(lambda views=views: views)
        until(lambda: not threads())
    held = list(rank.cache._views)
    assert trained[3] in held and coming[3] in held
    assert len(rank.prepared) <= 2 * 5


def test_parts_hold_one_page_or_many_small_images() -> None:
    pages = [page(1), page(1, (0, 0, 9, 9)), page(2), page(3)]
    assert [[view.image for view in part] for part in _parts(pages)] == [
        ["1", "1"],
        ["2"],
        ["3"],
    ]
    small = [ImageView(str(number), (112, 112), View()) for number in range(150)]
    assert [len(part) for part in _parts(small)] == [150]
    assert list(_parts([])) == []
