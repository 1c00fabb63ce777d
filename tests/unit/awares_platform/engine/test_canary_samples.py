"""Tests that the canary of a run uses the first four samples with readable images."""

from collections.abc import Callable

import pytest
from PIL import Image

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.engine.canary_samples import readable

SAMPLES = [Sample(f"s{number}", f"{number:064x}", "digit?", "7") for number in range(8)]


def images_without(*damaged: int) -> Callable[[str], Image.Image]:
    def read(digest: str) -> Image.Image:
        if int(digest, 16) in damaged:
            raise DataError(f"images/{digest} is damaged")
        return Image.new("RGB", (8, 8))

    return read


def test_the_first_four_that_can_be_read_are_taken() -> None:
    assert [sample.sample_id for sample in readable(SAMPLES, images_without())] == [
        "s0",
        "s1",
        "s2",
        "s3",
    ]
    assert [sample.sample_id for sample in readable(SAMPLES, images_without(0, 2))] == [
        "s1",
        "s3",
        "s4",
        "s5",
    ]
    assert [sample.sample_id for sample in readable(SAMPLES, images_without(*range(7)))] == ["s7"]


def test_none_is_an_error_that_names_the_first() -> None:
    with pytest.raises(
        DataError,
        match="none of the first 8 curated samples has a readable image; "
        f"the first: images/{0:064x} is damaged",
    ):
        readable(SAMPLES, images_without(*range(8)))
