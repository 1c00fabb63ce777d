"""Tests the token cost and the pixels of the low view and the crops under each view rule."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from awares.crops import CropId, crop_box
from awares.environment import Request
from awares.images import render
from awares.ten_crops import TenCrops
from awares.tokens import VisionLimits, rtr_token
from awares.view import View, full_view, view_size
from awares.view_rule import ViewRule, script_box
from awares.whole_image import WholeImage

SCRIPT = VisionLimits()
NATIVE = VisionLimits(max_pixels=16_384 * 28 * 28)
OWN = VisionLimits(min_pixels=4 * 28 * 28)
PAGE, PHOTO = (1700, 2200), (4032, 3024)


def ratio(rule, size, limits, *crops):
    environment = TenCrops(rule=rule)
    views = [environment.first_view(size)]
    if crops:
        views += environment.views(Request(crops), size)
    return rtr_token([view_size(view, size) for view in views], size, limits)


@pytest.mark.parametrize("views", ["paper", "released"])
@pytest.mark.parametrize(
    ("size", "limits", "figures"),
    [
        ((2246, 1582), SCRIPT, (0.571, 1.14, 1.57)),
        ((2246, 1582), NATIVE, (0.250, 0.50, 1.25)),
        (PAGE, SCRIPT, (0.588, 1.18, 1.59)),
        (PAGE, NATIVE, (0.243, 0.49, 1.24)),
        ((1920, 1080), SCRIPT, (0.326, 0.65, 1.33)),
        ((1920, 1080), NATIVE, (0.240, 0.48, 1.24)),
        ((850, 600), SCRIPT, (0.262, 0.52, 1.26)),
        ((850, 600), NATIVE, (0.262, 0.52, 1.26)),
        ((300, 100), SCRIPT, (0.909,)),
    ],
)
def test_the_papers_rule_costs_what_the_released_settings_cost(views, size, limits, figures):
    """Check the RTR (retained token ratio) of no request, a quadrant, and the whole image."""
    rule = ViewRule(views, max_pixels=limits.max_pixels)
    asked = ((), ("0",), ("all",))
    found = [ratio(rule, size, limits, *crops) for crops, _ in zip(asked, figures, strict=False)]
    assert found == pytest.approx(figures, abs=0.005)


@pytest.mark.parametrize(
    "size", [PAGE, PHOTO, (2480, 3508), (1240, 1754), (1920, 1080), (850, 600)]
)
def test_a_quarter_costs_a_quarter_of_full_resolution(size):
    rule = ViewRule(max_pixels=OWN.max_pixels)
    found = [ratio(rule, size, OWN, *crops) for crops in ((), ("0",), ("5",), ("all",))]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.25], abs=0.04)


def test_a_larger_crop_scale_shows_more_than_full_resolution_at_its_price():
    prices = [
        ratio(ViewRule(crop_scale=scale), PHOTO, OWN, "0") - ratio(ViewRule(), PHOTO, OWN)
        for scale in (0.5, 1.0, 1.5, 2.0, None)
    ]
    assert prices[:4] == pytest.approx([0.0625, 0.25, 0.5625, 1.0], abs=0.03)
    assert prices == sorted(prices)


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.sampled_from((1.0, 2.0, None)))
def test_no_region_is_enlarged_and_full_scale_is_full_resolution(size, crop_scale):
    rule = ViewRule(crop_scale=crop_scale)
    assert rule.crop(CropId.ALL, size) == full_view(size)
    assert all(0 < rule.crop(crop, size).scale <= 1.0 for crop in CropId)
    assert view_size(rule.low(size), size)[0] <= max(1, size[0] // 2)


def test_an_image_within_the_limit_has_the_same_views_by_the_papers_rule():
    size = (850, 600)
    relative, paper = (TenCrops(rule=ViewRule(views)) for views in ("relative", "paper"))
    assert relative.first_view(size) == paper.first_view(size) == View()
    every = Request(tuple(CropId))
    assert relative.views(every, size) == paper.views(every, size)


def test_a_crop_is_cut_from_the_original_pixels():
    """Check that a crop keeps detail of an image that is larger than the processor's limit."""
    image = Image.effect_noise((400, 400), 80).convert("RGB")
    rule = ViewRule(crop_scale=2.0, max_pixels=200 * 200)
    crop = render(image, rule.crop(CropId.CENTER, image.size))
    assert crop.tobytes() == image.crop((100, 100, 300, 300)).tobytes()
    half = render(image, ViewRule(max_pixels=200 * 200).crop(CropId.CENTER, image.size))
    expected = image.crop((100, 100, 300, 300)).resize((100, 100), Image.Resampling.LANCZOS)
    assert half.tobytes() == expected.tobytes()
    low = render(image, rule.low(image.size))
    assert low.tobytes() == image.resize((100, 100), Image.Resampling.LANCZOS).tobytes()


def test_the_whole_image_environment_has_the_low_view_of_the_rule():
    environment = WholeImage(rule=ViewRule(max_pixels=200 * 200))
    assert environment.first_view((400, 400)) == View(None, 0.5)
    assert environment.views(Request(("all",)), (400, 400)) == (full_view((400, 400)),)


def test_the_boxes_of_the_released_script():
    assert script_box(CropId.BOTTOM_RIGHT, (301, 401)) == (151, 201, 301, 401)
    assert script_box(CropId.TOP_LEFT, (301, 401)) == (0, 0, 150, 200)
    assert script_box(CropId.TOP_LEFT, (150, 400)) == (0, 0, 100, 200)
    assert script_box(CropId.RIGHT, (150, 400)) == (50, 0, 150, 400)
    assert script_box(CropId.CENTER, (400, 200)) == (100, 50, 300, 150)
    assert script_box(CropId.ALL, (301, 401)) == crop_box(CropId.ALL, (301, 401))
    for crop, size in itertools.product(CropId, [(400, 600), (1, 1), (30, 7)]):
        left, top, right, bottom = script_box(crop, size)
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_the_released_script_shrinks_very_long_images_first():
    rule = ViewRule("released")
    assert view_size(rule.low((40_000, 100)), (40_000, 100)) == (10_000, 25)
