import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from awares.errors import ConfigError
from awares.images import render
from awares.tokens import (
    MAX_ASPECT,
    VisionLimits,
    padded_size,
    resized,
    rtr_pixel,
    rtr_token,
    visual_tokens,
)
from awares.view import View

side = st.one_of(st.integers(1, 60), st.integers(1, 5000))
bounds = st.sampled_from(
    [(784, 50_176), (25_088, 1_605_632), (200_704, 1_605_632), (3136, 12_845_056), (1, 784)]
)


def limits_of(pixels: tuple[int, int]) -> VisionLimits:
    return VisionLimits(min_pixels=pixels[0], max_pixels=pixels[1])


@settings(max_examples=5000, deadline=None)
@given(side, side, bounds)
def test_counts_equal_the_real_processor(processor, width, height, pixels):
    assume(padded_size((width, height)) == (width, height))
    patches = processor.image_processor.get_number_of_image_patches(
        height, width, {"min_pixels": pixels[0], "max_pixels": pixels[1]}
    )
    assert visual_tokens((width, height), limits_of(pixels)) == patches // 4


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 400), st.sampled_from([(784, 50_176), (25_088, 100_352)])
)
def test_counts_equal_the_grid_of_processed_pixels(processor, width, height, pixels):
    limits = limits_of(pixels)
    view = render(Image.new("RGB", (width, height)), View((0, 0, width, height)))
    done = processor.image_processor(
        images=[view],
        size={"shortest_edge": pixels[0], "longest_edge": pixels[1]},
        return_tensors="pt",
    )
    assert done["image_grid_thw"].prod() // 4 == visual_tokens((width, height), limits)
    assert torch.isfinite(done["pixel_values"]).all()


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (3, 3), (27, 27), (1, 28), (1, 200), (5000, 25), (4001, 20), (1, 5000)]
)
def test_tiny_and_extreme_views_pass_the_real_processor(processor, size):
    limits = VisionLimits(min_pixels=784, max_pixels=1_605_632)
    view = render(Image.new("RGB", size), View((0, 0, *size)))
    done = processor.image_processor(
        images=[view],
        size={"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels},
        return_tensors="pt",
    )
    assert done["image_grid_thw"].prod() // 4 == visual_tokens(size, limits) > 0


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_padding_reaches_the_processors_aspect_and_touches_nothing_else(width, height):
    padded = padded_size((width, height))
    assert max(padded) == max(width, height) and max(padded) <= MAX_ASPECT * min(padded)
    assert padded == (width, height) or max(width, height) > MAX_ASPECT * min(width, height)


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((224, 224), 64),
        ((112, 112), 16),
        ((56, 56), 4),
        ((1, 1), 1),
        ((70, 56), 4),
        ((98, 28), 4),
        ((2240, 2240), 64),
    ],
)
def test_counts_by_hand(size, tokens):
    """Halves are rounded to even numbers: 70 / 28 = 2.5 becomes 2, and 98 / 28 = 3.5 becomes 4.

    The limits allow at most 64 tokens per image.
    """
    assert visual_tokens(size, VisionLimits(min_pixels=784, max_pixels=64 * 784)) == tokens


def test_published_ratios():
    """Compare the RTR (retained token ratio) and the pixel ratio of views with published values.

    A half-size view has 0.25 of the pixels, but here more than 0.25 of the tokens: the processor
    shrinks the full image or enlarges the view.
    """
    released = VisionLimits(min_pixels=25_088, max_pixels=1_605_632)
    full, low, quadrant = (2246, 1582), (1123, 791), (1123, 791)
    assert rtr_token([low], full, released) == pytest.approx(0.571, abs=5e-4)
    assert rtr_token([low, quadrant], full, released) == pytest.approx(1.14, abs=5e-3)
    assert rtr_token([low, full], full, released) == pytest.approx(1.571, abs=5e-4)
    assert rtr_token([(150, 50)], (300, 100), released) == pytest.approx(0.909, abs=5e-4)
    assert rtr_pixel([low], full) == 0.25
    assert rtr_pixel([low, quadrant], full) == 0.5
    assert rtr_pixel([low, full], full) == 1.25


def test_limits_that_leave_no_image_are_refused():
    with pytest.raises(ConfigError, match="method.max_pixels is 100"):
        VisionLimits(min_pixels=50, max_pixels=100)
    with pytest.raises(ConfigError, match="method.min_pixels is 0"):
        VisionLimits(min_pixels=0)


def test_resized_sides_are_whole_tokens():
    assert resized((850, 600), VisionLimits()) == (840, 588)
