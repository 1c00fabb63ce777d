import numpy as np
import pytest

from awares.crops import CropId, min_cover
from awares.mini.digits import scans
from awares.mini.scenes import LARGE, PLACES, SIDE, SMALL, draw, sample_scene

EXPECTED_CROP = dict(
    zip(
        PLACES,
        (CropId.TOP_LEFT, CropId.TOP_RIGHT, CropId.BOTTOM_LEFT, CropId.BOTTOM_RIGHT, CropId.CENTER),
        strict=True,
    )
)


def test_same_seed_draws_the_same_pixels():
    first, second = (draw(sample_scene("train", np.random.default_rng(5))) for _ in range(2))

    assert first.size == (SIDE, SIDE)
    assert np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("seed", range(40))
def test_each_item_is_covered_by_the_crop_of_its_place_and_no_color_repeats(seed):
    scene = sample_scene("test", np.random.default_rng(seed))

    assert len({item.color for item in scene.items}) == len(scene.items)
    for item in scene.items:
        assert min_cover([item.box], (SIDE, SIDE)) == (EXPECTED_CROP[item.place],)


def test_items_do_not_overlap():
    for seed in range(40):
        canvas = np.zeros((SIDE, SIDE), int)
        for left, top, right, bottom in (
            item.box for item in sample_scene("train", np.random.default_rng(seed)).items
        ):
            canvas[top:bottom, left:right] += 1
        assert canvas.max() == 1


def test_test_scans_were_never_seen_in_training():
    train, test = scans("train"), scans("test")

    assert len(train.digit) + len(test.digit) == 1797
    seen = {scan.tobytes() for scan in train.ink}
    assert not any(scan.tobytes() in seen for scan in test.ink)


def test_small_digits_lose_in_the_low_view_what_large_ones_keep():
    assert (
        SMALL[1] / 2 < 8 <= LARGE[0] / 2
    )  # scans are 8 px: below that, pixels of the original are merged
