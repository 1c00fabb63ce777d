"""Tests that an image which several concurrent requests contain is decoded and rendered once."""

import asyncio

import pytest

from awares.errors import DataError
from awares.images import DecodeLimits
from awares.view import View
from awares_platform.serve import shelf as module
from awares_platform.serve.shelf import Shelf


@pytest.fixture
def decoded(monkeypatch):
    """Return a list to which each real decoding adds the name of its image."""
    names = []

    def count(data, limits, *, source):
        names.append(source)
        return real(data, limits, source=source)

    real = module.decode
    monkeypatch.setattr(module, "decode", count)
    return names


def test_equal_images_are_decoded_and_rendered_once(decoded, png):
    async def use(shelf):
        file = await shelf.open(png, "image")
        borrowed = shelf.borrow(file)
        gallery = await borrowed
        await asyncio.sleep(0.05)
        view = (await gallery.show((View(None),), 0.5))[0]
        shelf.give_back(file)
        return view

    async def play():
        shelf = Shelf(DecodeLimits())
        views = await asyncio.gather(*(use(shelf) for _ in range(8)))
        assert all(view is views[0] for view in views) and decoded == ["image"]
        await use(shelf)
        assert decoded == ["image"] * 2, "no request has used the image for a while"

    asyncio.run(play())


def test_a_request_that_leaves_takes_no_image_from_the_others(decoded, png):
    async def play():
        shelf = Shelf(DecodeLimits())
        file = await shelf.open(png, "image")
        first, second = (asyncio.ensure_future(shelf.borrow(file)) for _ in range(2))
        first.cancel()
        shelf.give_back(file)
        assert (await second).image.size == (112, 112)
        shelf.give_back(file)
        assert decoded == ["image"]

    asyncio.run(play())


def test_each_request_hears_of_a_corrupt_image_by_its_own_name(png):
    async def use(shelf, name):
        file = await shelf.open(png[:200], name)
        borrowed = shelf.borrow(file)
        try:
            await borrowed
        finally:
            shelf.give_back(file)

    async def play():
        shelf = Shelf(DecodeLimits())
        names = ["image 0", "image 1", "image 1"]
        works = (use(shelf, name) for name in names)
        return names, await asyncio.gather(*works, return_exceptions=True)

    for name, error in zip(*asyncio.run(play()), strict=True):
        assert isinstance(error, DataError) and str(error).startswith(name)
