"""Tests that generated files match their sources: golden files, the schema and the README."""

import difflib

import chart
import pytest

from tests.unit.helm import golden
from tests.unit.helm.cases import PRESETS
from tests.unit.helm.render import CHART


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_renders_as_it_did(preset: str) -> None:
    kept, now = (golden.FOLDER / f"{preset}.yaml").read_text(), golden.rendered(preset)
    changes = "\n".join(
        difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", lineterm="", n=1)
    )
    assert not changes, f"renew with `{golden.COMMAND}` and look at the difference:\n{changes}"


def test_golden_files_are_the_presets() -> None:
    assert (
        {path.stem for path in golden.FOLDER.iterdir()}
        == {*PRESETS}
        == {path.stem for path in (CHART / "presets").iterdir()}
    )


def test_schema_and_readme_are_generated_from_their_sources() -> None:
    stale = [
        path.name for path, text in chart.files(CHART).items() if path.read_text("utf-8") != text
    ]
    assert stale == [], "renew these files with `.venv/bin/python .ci/chart.py helm/awares-train`"
