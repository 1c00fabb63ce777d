import importlib.util
from pathlib import Path

import pytest

from awares_platform.runtime import source_tree
from awares_platform.runtime.source_tree import SourceTree
from awares_platform.store.errors import LaunchError

ROOT = Path(__file__).parents[4]


def test_a_clone_is_one_tree() -> None:
    tree = source_tree.here()
    assert tree.paths == (str(ROOT), str(ROOT / "platform"))
    assert tree == source_tree.here()


def test_packages_from_two_places_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "awares_platform").mkdir()
    stray = tmp_path / "awares_platform" / "__init__.py"
    stray.write_text("")
    original = importlib.util.find_spec
    monkeypatch.setattr(
        source_tree.importlib.util,
        "find_spec",
        lambda name: (
            importlib.util.spec_from_file_location(name, stray)
            if name == "awares_platform"
            else original(name)
        ),
    )
    message = f"awares comes from {ROOT / 'awares'} but awares_platform from {stray.parent}"
    with pytest.raises(LaunchError, match=f"{message}: two source trees"):
        source_tree.here()


def test_a_worker_with_other_sources_is_refused() -> None:
    driver = SourceTree("/up/awares", "/up/platform/awares_platform", "aa")
    source_tree.require_same(
        driver, SourceTree("/elsewhere/awares", "/elsewhere/platform/awares_platform", "aa"), "n1"
    )
    with pytest.raises(LaunchError, match="node n1 runs other sources"):
        source_tree.require_same(
            driver, SourceTree("/site/awares", "/site/awares_platform", "bb"), "n1"
        )
