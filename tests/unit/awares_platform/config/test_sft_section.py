"""Tests that the [sft] section accepts a batch only if it divides into equal micro-batches."""

import pytest
from pydantic import ValidationError

from awares_platform.config.sft import SftConfig


def test_the_papers_batch_divides() -> None:
    assert SftConfig(batch_size=128, workers=8, micro_batch=4).batch_size == 128


def test_a_batch_that_does_not_divide_names_the_nearest() -> None:
    with pytest.raises(
        ValidationError,
        match=r"sft.batch_size=100 is not a multiple of .* = 64; try sft.batch_size=64",
    ):
        SftConfig(batch_size=100, workers=2, micro_batch=32)
