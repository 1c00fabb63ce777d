"""Tests the patch formats of helm and kubectl on hand-written objects."""

import pytest

from tests.simulator.api import patches


def test_a_strategic_merge_keeps_unnamed_fields() -> None:
    live = {
        "spec": {
            "containers": [
                {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
                {"name": "b", "image": "1"},
            ],
            "args": ["x"],
        }
    }
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [
                {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]},
                {"name": "b", "$patch": "delete"},
            ],
            "args": ["y"],
        }
    }
    container = {
        "name": "a",
        "image": "2",
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
    }
    assert patches.strategic(live, patch) == {"spec": {"containers": [container], "args": ["y"]}}


def test_a_strategic_merge_replaces_retains_and_removes() -> None:
    live = {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": 1, "finalizers": ["f", "g"]}
    patch = {
        "a": {"$patch": "replace", "z": 3},
        "b": {"$retainKeys": ["y"]},
        "c": None,
        "$deleteFromPrimitiveList/finalizers": ["f"],
    }
    assert patches.strategic(live, patch) == {"a": {"z": 3}, "b": {"y": 2}, "finalizers": ["g"]}


def test_apply_removes_fields_that_the_same_manager_omits() -> None:
    live = {"data": {"mine": "1", "dropped": "1", "theirs": "1"}, "list": [1, 2]}
    applied = patches.apply(
        live, {"data": {"mine": "1", "dropped": "1"}}, {"data": {"mine": "2"}, "list": [3]}
    )
    assert applied == {"data": {"mine": "2", "theirs": "1"}, "list": [3]}


def test_a_json_patch_adds_replaces_removes_and_tests() -> None:
    operations = [
        {"op": "test", "path": "/a", "value": 1},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "add", "path": "/list/0", "value": 0},
        {"op": "replace", "path": "/x~1y", "value": 2},
        {"op": "remove", "path": "/a"},
    ]
    assert patches.json_patch({"a": 1, "list": [1], "x/y": 1}, operations) == {
        "list": [0, 1, 3],
        "x/y": 2,
    }
    with pytest.raises(ValueError, match="test of /a"):
        patches.json_patch({"a": 2}, operations)


@pytest.mark.parametrize(
    ("verb", "path", "error"),
    [
        ("replace", "/b", KeyError),
        ("remove", "/b", KeyError),
        ("test", "/b", KeyError),
        ("add", "/b/c", KeyError),
        ("add", "/list/3", IndexError),
        ("add", "/list/-1", IndexError),
        ("replace", "/list/2", IndexError),
        ("remove", "/list/-", IndexError),
    ],
)
def test_a_json_patch_raises_for_a_path_that_does_not_exist(
    verb: str, path: str, error: type[Exception]
) -> None:
    document = {"a": 1, "list": [1, 2]}
    with pytest.raises(error):
        patches.json_patch(document, [{"op": verb, "path": path, "value": 0}])
    added = [{"op": "add", "path": "/list/2", "value": 3}, {"op": "add", "path": "/a", "value": 2}]
    assert patches.json_patch(document, added) == {"a": 2, "list": [1, 2, 3]}


def test_a_merge_patch_deletes_by_null() -> None:
    assert patches.merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None}, "d": [2]}) == {
        "a": {"c": 2},
        "d": [2],
    }
