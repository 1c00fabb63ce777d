"""Tests the places of items in a scene, and that no handwritten digit is in two splits."""

import numpy as np
import pytest

from awares.crops import CropId, min_cover
from awares.mini.digits import scans
from awares.mini.scenes import LARGE, SIDE, SMALL, draw, sample_scene

EXPECTED_CROP = {
    "northwest": CropId.TOP_LEFT,
    "northeast": CropId.TOP_RIGHT,
    "southwest": CropId.BOTTOM_LEFT,
    "southeast": CropId.BOTTOM_RIGHT,
    "center": CropId.CENTER,
}


def test_a_seed_always_draws_the_same_pixels():
    first, second = (draw(sample_scene("train", np.random.default_rng(5))) for _ in range(2))

    assert first.size == (SIDE, SIDE)
    assert np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("seed", range(40))
def test_the_crop_of_a_place_covers_its_item_and_no_color_repeats(seed):
    scene = sample_scene("test", np.random.default_rng(seed))

    assert len({item.color for item in scene.items}) == len(scene.items)
    for item in scene.items:
        assert min_cover([item.box], (SIDE, SIDE)) == (EXPECTED_CROP[item.place],)


def test_items_do_not_overlap():
    for seed in range(40):
        canvas = np.zeros((SIDE, SIDE), int)
        for item in sample_scene("train", np.random.default_rng(seed)).items:
            left, top, right, bottom = item.box
            canvas[top:bottom, left:right] += 1
        assert canvas.max() == 1


def test_the_splits_share_no_scan():
    train, test = scans("train"), scans("test")

    assert len(train.digit) + len(test.digit) == 1797
    seen = {scan.tobytes() for scan in train.ink}
    assert not any(scan.tobytes() in seen for scan in test.ink)


def test_the_low_resolution_view_merges_pixels_of_small_digits_only():
    side_of_a_scan = 8
    assert SMALL[1] / 2 < side_of_a_scan <= LARGE[0] / 2
