"""Tests that a view is rendered once for all episodes, and which thread renders the view."""

import asyncio
import threading
import time

import pytest
from PIL import Image, ImageDraw

from awares import gallery as module
from awares.gallery import Gallery
from awares.images import render
from awares.view import View


def page(side: int) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((side // 8, side // 8, side // 2, side // 3), fill="red")
    return image


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Return a list to which each rendering of a view appends its thread."""
    used: list[threading.Thread] = []

    def recorded(image: Image.Image, view: View, ratio: float) -> Image.Image:
        used.append(threading.current_thread())
        time.sleep(0.05)
        return render(image, view, ratio)

    monkeypatch.setattr(module, "render", recorded)
    return used


async def show(
    gallery: Gallery, views: tuple[View, ...], times: int
) -> list[tuple[Image.Image, ...]]:
    return await asyncio.gather(*(gallery.show(views, 0.5) for _ in range(times)))


@pytest.mark.parametrize("side", [64, 1024])
def test_many_episodes_share_each_view(side: int, threads: list[threading.Thread]) -> None:
    gallery, views = Gallery(page(side)), (View(None), View((0, 0, side // 2, side // 2)))
    shown = asyncio.run(show(gallery, views, 8))
    assert len(threads) == 2
    for one, view in zip(shown[-1], views, strict=True):
        assert one.tobytes() == render(page(side), view, 0.5).tobytes()
    here = threading.current_thread()
    assert all((thread is here) is (side == 64) for thread in threads)


def test_another_ratio_is_another_view(threads: list[threading.Thread]) -> None:
    async def widths() -> list[int]:
        gallery = Gallery(page(64))
        return [(await gallery.show((View(None),), ratio))[0].width for ratio in (0.5, 0.25)]

    assert asyncio.run(widths()) == [32, 16] and len(threads) == 2


def test_an_episode_that_ends_does_not_take_the_view_from_the_others(
    threads: list[threading.Thread],
) -> None:
    async def cancel_one() -> Image.Image:
        gallery = Gallery(page(1024))
        first, second = (asyncio.create_task(gallery.show((View(None),), 0.5)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        return (await second)[0]

    assert asyncio.run(cancel_one()).size == (512, 512) and len(threads) == 1
