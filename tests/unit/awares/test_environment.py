"""Tests the requests of each environment, and the views and the cost of a request."""

import inspect
import textwrap

import pytest

from awares.crops import union_area
from awares.environment import (
    Answer,
    Environment,
    Malformed,
    Request,
    count_regions,
    readable,
)
from awares.evaluation.decisions import region_iou
from awares.one_turn import OneTurn
from awares.ten_crops import TenCrops
from awares.view import View
from awares.view_rule import RELATIVE, ViewRule
from awares.whole_image import WholeImage

SIZE = (112, 56)
CORNER = ((2, 2, 20, 20),)


def worked_example() -> Environment:
    """Run the example in the docstring of Environment, and return an instance of its class."""
    text = inspect.cleandoc(Environment.__doc__ or "").partition("Example:\n")[2]
    names = {
        "RELATIVE": RELATIVE,
        "ViewRule": ViewRule,
        "Answer": Answer,
        "Request": Request,
        "Malformed": Malformed,
    }
    exec(textwrap.dedent(text), names)
    return names["Zoom"]()


ENVIRONMENTS = [
    pytest.param(TenCrops(), ("0",), (View((0, 0, 56, 28)),), 0.25, id="ten crops"),
    pytest.param(TenCrops(mapping="iou"), None, (), 0.0, id="ten crops, iou"),
    pytest.param(WholeImage(), ("all",), (View((0, 0, 112, 56)),), 1.0, id="whole image"),
    pytest.param(
        OneTurn(TenCrops(), full=True), ("0",), (View((0, 0, 56, 28)),), 0.25, id="one turn"
    ),
    pytest.param(
        worked_example(), ("centre",), (View((28, 14, 84, 42)),), 0.25, id="worked example"
    ),
]


@pytest.mark.parametrize(("environment", "regions", "views", "cost"), ENVIRONMENTS)
def test_the_request_that_covers_the_evidence(environment, regions, views, cost):
    request = environment.cover(CORNER, SIZE)
    if regions is None:
        assert request is None
        return
    assert request == Request(regions)
    assert environment.parse(environment.write(request)) == request
    assert readable(environment, regions) == request
    assert environment.views(request, SIZE) == views
    assert environment.cost(request, SIZE) == cost
    assert environment.parse("7") == Answer("7")


@pytest.mark.parametrize(
    ("size", "views", "cost"),
    [
        ((99, 300), (View((0, 0, 99, 300)),), 1.0),
        ((300, 99), (View((0, 0, 300, 99)),), 1.0),
        ((100, 100), (View((0, 0, 50, 50)), View((50, 0, 100, 100))), 0.75),
    ],
)
def test_a_small_image_is_whole_only_by_the_rule_of_the_authors_script(size, views, cost):
    request = Request(("0", "8"))
    script, ours = TenCrops(small_images="whole"), TenCrops()
    assert (script.views(request, size), script.cost(request, size)) == (views, cost)
    assert len(ours.views(request, size)) == 2 and ours.cost(request, size) == 0.75


def test_regions_of_another_environment_are_not_readable():
    assert readable(WholeImage(), ("0",)) is None
    assert readable(TenCrops(), ("10, 20, 30, 40",)) is None
    assert readable(TenCrops(allow_all=False), ("all",)) is None
    assert readable(TenCrops(), ()) is None


def test_the_whole_image_is_all_that_vision_think_offers():
    environment = WholeImage()
    assert environment.write(Request(("all",))) == "GET_CROPS: ['all']"
    assert environment.write(Request(("all",))) in environment.system_prompt
    assert environment.parse("GET_CROPS: ['0']") == Malformed("only the whole image is on offer")


def test_a_request_without_a_region_is_refused():
    with pytest.raises(ValueError, match="names at least one region"):
        Request(())


def test_unlisted_regions_are_counted_together():
    counts = count_regions(["0", "7, 8", "0", "9, 9"], ("0", "1"))
    assert counts == {"0": 2, "1": 0, "other": 2} and list(counts) == ["0", "1", "other"]
    assert count_regions([], ("0",)) == {"0": 0}


def test_a_union_counts_each_pixel_once():
    assert union_area([(0, 0, 10, 10), (5, 5, 15, 15), (0, 0, 10, 10)]) == 175
    assert union_area([]) == 0
    assert region_iou(("0",), ("all",), TenCrops()) == 0.25
