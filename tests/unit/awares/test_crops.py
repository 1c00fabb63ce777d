from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.crops import (
    CropId,
    area,
    area_fraction,
    clamp,
    coverage,
    crop_box,
    iou,
    min_cover,
    pad,
    target_crops,
)
from awares.errors import ConfigError

SIZE = (112, 112)
sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
boxes = st.tuples(
    st.integers(-50, 300), st.integers(-50, 300), st.integers(-50, 300), st.integers(-50, 300)
)


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        (CropId.TOP_LEFT, (0, 0, 50, 30)),
        (CropId.TOP_RIGHT, (50, 0, 100, 30)),
        (CropId.BOTTOM_LEFT, (0, 30, 50, 60)),
        (CropId.BOTTOM_RIGHT, (50, 30, 100, 60)),
        (CropId.CENTER, (25, 15, 75, 45)),
        (CropId.TOP, (0, 0, 100, 30)),
        (CropId.BOTTOM, (0, 30, 100, 60)),
        (CropId.LEFT, (0, 0, 50, 60)),
        (CropId.RIGHT, (50, 0, 100, 60)),
        (CropId.ALL, (0, 0, 100, 60)),
    ],
)
def test_geometry_of_an_even_image(crop, box):
    assert crop_box(crop, (100, 60)) == box


def test_odd_sides_share_a_pixel_instead_of_losing_one():
    assert crop_box(CropId.TOP_LEFT, (5, 3)) == (0, 0, 3, 2)
    assert crop_box(CropId.BOTTOM_RIGHT, (5, 3)) == (2, 1, 5, 3)
    assert crop_box(CropId.CENTER, (5, 3)) == (1, 0, 4, 2)


@given(sizes)
def test_crops_lie_inside_are_never_empty_and_quadrants_cover_the_image(size):
    width, height = size
    for crop in CropId:
        left, top, right, bottom = crop_box(crop, size)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert crop_box(CropId.TOP_LEFT, size)[2] >= crop_box(CropId.TOP_RIGHT, size)[0]
    assert crop_box(CropId.TOP_LEFT, size)[3] >= crop_box(CropId.BOTTOM_LEFT, size)[1]


def test_areas_add_and_overlaps_count_twice():
    assert area_fraction(()) == 0.0
    assert area_fraction((CropId.TOP_LEFT, CropId.TOP)) == 0.75
    assert area_fraction((CropId.CENTER, CropId.ALL)) == 1.25


def test_crop_ious_are_the_published_geometry():
    def pair(first, second):
        return iou(crop_box(first, (400, 400)), crop_box(second, (400, 400)))

    assert pair(CropId.TOP_LEFT, CropId.TOP) == 0.5
    assert pair(CropId.CENTER, CropId.TOP_LEFT) == pytest.approx(1 / 7)
    assert pair(CropId.CENTER, CropId.LEFT) == pytest.approx(0.2)
    assert pair(CropId.TOP, CropId.LEFT) == pytest.approx(1 / 3)
    assert pair(CropId.CENTER, CropId.ALL) == 0.25


@given(boxes, sizes)
def test_clamped_boxes_are_inside_and_not_empty(box, size):
    left, top, right, bottom = clamp(box, size)
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_padding_grows_by_a_share_of_the_box_and_clamps():
    assert pad((40, 50, 60, 60), SIZE, 0.1) == (38, 49, 62, 61)
    assert pad((0, 0, 100, 20), SIZE, 0.05) == (0, 0, 105, 21)
    assert coverage((0, 0, 10, 10), (5, 0, 20, 20)) == 0.5


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # The box lies inside one quadrant.
        ([(4, 4, 30, 30)], (CropId.TOP_LEFT,)),
        ([(90, 90, 110, 110)], (CropId.BOTTOM_RIGHT,)),
        # The box straddles all quadrants.
        ([(46, 46, 66, 66)], (CropId.CENTER,)),
        # The box lies across the border between the top left and top right quadrants.
        ([(30, 4, 80, 24)], (CropId.TOP,)),
        ([(4, 30, 24, 80)], (CropId.LEFT,)),
        # The top half and the two top quadrants have the same area. The top half is chosen,
        # because it is only one crop.
        ([(4, 4, 24, 24), (90, 4, 110, 24)], (CropId.TOP,)),
        # The boxes lie in opposite corners, so no half contains both boxes.
        ([(4, 4, 24, 24), (90, 90, 110, 110)], (CropId.TOP_LEFT, CropId.BOTTOM_RIGHT)),
        ([(4, 4, 24, 24), (46, 46, 66, 66)], (CropId.TOP_LEFT, CropId.CENTER)),
        # Two sets of crops cover the three corners with the same area. The set with the top right
        # quadrant wins, because this quadrant comes before the bottom left one.
        ([(4, 4, 24, 24), (90, 4, 110, 24), (4, 90, 24, 110)], (CropId.TOP_RIGHT, CropId.LEFT)),
        ([(0, 0, 112, 112)], (CropId.ALL,)),
        # The box spans the middle of the image from left to right, so no half contains the box.
        ([(2, 40, 110, 70)], (CropId.ALL,)),
        ([], (CropId.ALL,)),
    ],
)
def test_min_cover_by_hand(evidence, expected):
    assert min_cover(evidence, SIZE) == expected


def test_without_all_two_halves_stand_for_the_image():
    assert min_cover([(0, 0, 112, 112)], SIZE, allow_all=False) == (CropId.TOP, CropId.BOTTOM)


def test_tau_decides_whether_a_box_that_sticks_out_is_covered():
    # The box is 20 pixels wide. The left half of the image contains 12 of these 20 columns.
    # The top left quadrant therefore contains 0.6 of the box.
    box = [(44, 4, 64, 24)]
    assert min_cover(box, SIZE, tau=0.6, padding=0.0) == (CropId.TOP_LEFT,)
    assert min_cover(box, SIZE, tau=0.61, padding=0.0) == (CropId.TOP,)


@given(st.lists(boxes.map(lambda box: clamp(box, SIZE)), min_size=1, max_size=4))
def test_min_cover_covers_and_nothing_smaller_does(evidence):
    def covers(subset):
        return all(
            any(coverage(box, crop_box(crop, SIZE)) >= 0.9 for crop in subset) for box in evidence
        )

    chosen = min_cover(evidence, SIZE, padding=0.0)
    assert covers(chosen)
    every = chain.from_iterable(combinations(CropId, size) for size in range(1, 4))
    rivals = [subset for subset in every if covers(subset)]
    assert (area_fraction(chosen), len(chosen)) == min(
        (area_fraction(subset), len(subset)) for subset in rivals
    )


def test_the_literal_iou_rule_maps_a_small_box_to_nothing():
    assert target_crops([(4, 4, 30, 30)], SIZE, "iou", tau=0.5) == ()
    assert target_crops([(0, 0, 56, 56)], SIZE, "iou", tau=0.5) == (
        CropId.TOP_LEFT,
        CropId.TOP,
        CropId.LEFT,
    )
    assert target_crops([(0, 0, 56, 56), (56, 56, 112, 112)], SIZE, "iou", tau=0.6) == (CropId.ALL,)


def test_the_coverage_rule_keeps_the_halves_and_all_only_as_a_last_resort():
    assert target_crops([(4, 4, 30, 30)], SIZE, "coverage") == (
        CropId.TOP_LEFT,
        CropId.TOP,
        CropId.LEFT,
    )
    assert target_crops([(0, 0, 112, 112)], SIZE, "coverage") == (CropId.ALL,)
    assert target_crops([(4, 4, 30, 30)], SIZE) == (CropId.TOP_LEFT,)


def test_an_unknown_mapping_names_the_known():
    with pytest.raises(
        ConfigError, match="method.mapping is 'giou'; use one of min_cover, iou, coverage"
    ):
        target_crops([(4, 4, 30, 30)], SIZE, "giou")


def test_area_of_an_inverted_box_is_zero():
    assert area((5, 5, 2, 9)) == 0
