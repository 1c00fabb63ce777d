from awares.crops import CropId
from awares.view import View, crop_view, full_view, view_size


def test_sizes_of_views():
    assert view_size(View(None), (101, 7)) == (50, 3)
    assert view_size(View(None), (100, 100), low_ratio=0.25) == (25, 25)
    assert view_size(View(None), (1, 1)) == (1, 1)
    assert view_size(crop_view(CropId.BOTTOM_RIGHT, (101, 7)), (101, 7)) == (51, 4)
    assert view_size(full_view((101, 7)), (101, 7)) == (101, 7)
    assert view_size(View((-5, 2, 400, 9)), (101, 7)) == (101, 5)
