"""Tests that the canary of a run uses the first four usable samples."""

from collections.abc import Callable

import pytest

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.engine.canary_samples import usable

SAMPLES = [Sample(f"s{number}", f"{number:064x}", "digit?", "7") for number in range(8)]


def without(*damaged: int) -> Callable[[Sample], None]:
    def check(sample: Sample) -> None:
        if int(sample.image, 16) in damaged:
            raise DataError(f"images/{sample.image} is damaged")

    return check


def test_the_first_four_usable_samples_are_taken() -> None:
    assert [sample.sample_id for sample in usable(SAMPLES, without())] == ["s0", "s1", "s2", "s3"]
    assert [sample.sample_id for sample in usable(SAMPLES, without(0, 2))] == [
        "s1",
        "s3",
        "s4",
        "s5",
    ]
    assert [sample.sample_id for sample in usable(SAMPLES, without(*range(7)))] == ["s7"]


def test_none_is_an_error_that_names_the_first() -> None:
    with pytest.raises(
        DataError,
        match="none of the first 8 samples has a readable image and a question that fits the "
        f"canary; the first: images/{0:064x} is damaged",
    ):
        usable(SAMPLES, without(*range(8)))
