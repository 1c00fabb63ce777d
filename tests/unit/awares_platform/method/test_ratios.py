"""Tests the retained token ratios (RTR) of a setup's views, and the warnings about them."""

import logging

import pytest

from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.config.method import MethodConfig
from awares_platform.method.ratios import log_ratios, ratios

PAGES = [(1240, 1754), (1700, 2200), (2480, 3508), (4032, 3024)]

PAPER = {"min_pixels": 25_088, "max_visual_tokens": 4096}
"""The bounds of the 7B setup."""


def of(sizes: list[tuple[int, int]], **settings: object):
    return ratios(sizes, MethodConfig.model_validate({**PAPER, **settings}), QWEN2_5_VL)


def test_the_papers_rule_costs_more_than_full_resolution_on_real_pages() -> None:
    """Check the mean RTR of three scanned pages and a photograph.

    The mean is over episodes, of which 29 % ask for a crop.
    """
    paper = of(PAGES, views="paper")
    average = [low + 0.29 * (crop - low) for low, crop in zip(paper.low, paper.crop, strict=True)]
    assert average == pytest.approx([0.44, 0.76, 1.29, 1.29], abs=0.01)
    assert len(paper.warnings) == 2
    assert paper.warnings[0].startswith("low view: mean RTR 0.7") and (
        'set method.views="relative"' in paper.warnings[0]
    )


def test_views_relative_to_full_resolution_stay_below_the_bounds() -> None:
    found = of(PAGES)
    assert max(found.low) < 0.3 and max(found.crop) < 0.6 and found.warnings == []
    assert found.mean["whole"] == pytest.approx(1.26, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, ["low view:", "low view and one crop:"]),
        ({"min_pixels": 784}, []),
        ({"min_pixels": 784, "crop_scale": 0.5}, []),
        ({"min_pixels": 784, "low_ratio": 0.8}, ["low view:", "low view and one crop:"]),
    ],
)
def test_small_images_and_a_large_ratio_are_warned_of(settings, warned) -> None:
    found = of([(300, 112)], **settings).warnings
    assert [text.split(" mean")[0] for text in found] == warned


def test_a_crop_of_native_pixels_is_warned_of_alone() -> None:
    found = of(PAGES, views="relative", crop_scale="none")
    assert [text.split(":")[0] for text in found.warnings] == ["low view and one crop"]


def test_a_budget_below_the_low_view_is_warned_of() -> None:
    """Check budgets above and below 520 tokens, the size of the first image's low view."""
    sizes = [(1700, 2200), (850, 600)]
    assert [of(sizes, max_visual_tokens=tokens).closed for tokens in (2000, 512, 100)] == [0, 1, 2]
    [text] = of(sizes, max_visual_tokens=512).warnings
    assert text.startswith("1 of 2 images: no region fits into method.max_visual_tokens beside")
    assert of(sizes, max_visual_tokens=512, max_turns=1).closed == 0
    whole = of(sizes, max_visual_tokens=1000, environment="awares.whole_image:WholeImage")
    assert whole.closed == 1


def test_the_text_names_mean_and_percentiles() -> None:
    one = of([(1700, 2200)] * 3)
    assert str(one) == (
        "RTR over 3 images: low view 0.26, low view and one crop 0.52, "
        "low view and whole image 1.26"
    )
    assert "(0.2" in str(of([(850, 600), (300, 100)]))


def test_the_log_holds_ratios_and_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_ratios(PAGES, MethodConfig.model_validate({**PAPER, "views": "paper"}), QWEN2_5_VL)
        log_ratios([], MethodConfig(), QWEN2_5_VL)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]


@pytest.mark.parametrize("mapping", ["min_cover", "iou", "coverage"])
def test_every_environment_has_ratios(mapping: str) -> None:
    whole = of(PAGES, environment="awares.whole_image:WholeImage")
    assert whole.crop == whole.whole
    assert of(PAGES, mapping=mapping, allow_all=False).mean["crop"] == pytest.approx(0.52, abs=0.01)
