"""Tests that only a crop shows the small print of a page, and what the crop costs."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from awares.environment import Request
from awares.images import render
from awares.mini.pages import FULL_PIXELS, PAGE_SIDE, generate_pages, page
from awares.mini.scenes import LARGE, SMALL, draw
from awares.sample import Label
from awares.ten_crops import TenCrops
from awares.tokens import VisionLimits, visual_tokens
from awares.view import view_size
from awares.view_rule import ViewRule

SIZE = (PAGE_SIDE, PAGE_SIDE)
LIMITS = VisionLimits(min_pixels=784, max_pixels=FULL_PIXELS)
ENVIRONMENT = TenCrops(rule=ViewRule(crop_scale=2.0, max_pixels=FULL_PIXELS))


def test_a_page_has_the_low_and_full_view_of_a_scene_and_larger_crops():
    views = [ENVIRONMENT.first_view(SIZE), *ENVIRONMENT.views(Request(("0",)), SIZE)]
    assert [view_size(view, SIZE) for view in views] == [(56, 56), (112, 112)]
    assert [visual_tokens(view_size(view, SIZE), LIMITS) for view in views] == [4, 16]
    assert visual_tokens(SIZE, LIMITS) == 16


def test_every_question_about_small_print_is_hr():
    samples = [sample for _, sample in generate_pages("test", 300, 0)]
    assert {sample.label for sample in samples} == {Label.LR, Label.HR}
    for sample in samples:
        assert (sample.label is Label.HR) == sample.kind.endswith("/small")
        assert bool(sample.crops) == (sample.label is Label.HR)
    share = sum(sample.label is Label.HR for sample in samples) / len(samples)
    assert 0.2 < share < 0.45


def test_pages_depend_on_split_seed_and_index_alone():
    first, second = (list(generate_pages("train", 4, 1)) for _ in range(2))
    assert first == second != list(generate_pages("train", 4, 2))
    with Image.open(io.BytesIO(first[0][0])) as image:
        assert image.size == SIZE
    assert first[0][1].sample_id == "mini-pages/train/1/0"


def test_small_print_has_too_few_pixels_in_the_full_view():
    """Check that two different small digits differ more in the crop than in the full view."""
    seen = 0
    for seed in range(40):
        scene = page("test", np.random.default_rng(seed))
        item = scene.items[0]
        assert item.height >= 2 * LARGE[0] or SMALL[0] <= item.height <= 10
        if item.height > 10:
            continue
        seen += 1
        other = replace(scene, items=(replace(item, scan=item.scan + 1), *scene.items[1:]))
        first, second = draw(scene), draw(other)
        crop = ENVIRONMENT.views(Request(("0",)), SIZE)[0]
        gaps = [_gap(render(first, crop), render(second, crop))]
        gaps += [_gap(*(image.resize((112, 112)) for image in (first, second)))]
        assert gaps[1] < gaps[0]
    assert seen > 5


def _gap(first, second):
    """Return the largest difference between the pixel values of two images.

    The images show scenes with the same seed. Their noise is identical, so it cancels.
    """
    return int(np.abs(np.asarray(first, int) - np.asarray(second, int)).max())
