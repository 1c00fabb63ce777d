"""Tests that the chart renders with each block of values in install.md."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm/awares-train"
PLACES = os.pathsep.join((str(ROOT / ".tools/bin"), os.environ.get("PATH", "")))


def blocks() -> list[str]:
    """Return the indented blocks of install.md that start with a top-level key of values.yaml."""
    text = (ROOT / "helm/docs/install.md").read_text()
    found = [
        "\n".join(line[4:] for line in block.splitlines())
        for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ]
    return [
        block
        for block in found
        if re.match(
            r"(target|image|queue|store|setup|cluster|endpoint|serviceAccounts|networkPolicy):",
            block,
        )
    ]


def test_the_blocks_are_found() -> None:
    assert len(blocks()) == 4


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.split(":")[0])
def test_it_renders(block: str, tmp_path: Path) -> None:
    helm = shutil.which("helm", path=PLACES)
    if helm is None or not CHART.exists():
        pytest.skip("no helm, or no chart in this tree: `make tools` brings helm")
    values = tmp_path / "values.yaml"
    values.write_text(block)
    options = [
        "--values",
        str(CHART / "presets/two-pools.yaml"),
        "--values",
        str(values),
        "--set",
        "store.bucket=my-bucket,target=eks",
    ]
    done = subprocess.run(
        [helm, "template", "awares-train", str(CHART), *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rendered = done.stdout
    written = {key: value for key, value in yaml.safe_load(block).items() if key != "target"}
    for leaf in leaves(written):
        assert leaf in rendered, f"the rendered chart does not contain {leaf!r} of the block"


def leaves(node: object) -> list[str]:
    """Return all string values in a parsed YAML value."""
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in leaves(value)]
    if isinstance(node, list):
        return [leaf for value in node for leaf in leaves(value)]
    return [node] if isinstance(node, str) else []
