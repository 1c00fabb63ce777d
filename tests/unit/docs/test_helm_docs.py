"""Tests that the chart's documents quote the code's error messages, metrics and plans exactly."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "helm/docs"
ROUTES = ROOT / "platform/awares_platform/serve"


def sources() -> str:
    """Return the text of the project's Python files, with each message on one line."""
    text = "\n".join(
        path.read_text()
        for folder in ("awares", "platform/awares_platform")
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    # Join string literals that continue on the next line.
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    return text.replace("{_VARIABLES}", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


def quoted() -> list[str]:
    return re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("message", quoted())
def test_quoted_errors_are_the_codes_own_words(message: str) -> None:
    text = sources()
    for part in re.split(r"\s*\.\.\.[);:]*\s*", message):
        words = part.strip(" ();:")
        assert not words or words in text, f"no code contains {words!r}"


def test_quotes_are_there() -> None:
    assert len(quoted()) > 15


def test_codes_of_the_endpoint_are_its_own() -> None:
    text = "\n".join(path.read_text() for path in ROUTES.glob("*.py"))
    table = re.findall(
        r"^\| (\d{3}) `(\w+)`", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE
    )
    assert len(table) >= 6
    for status, code in table:
        assert f'code="{code}"' in text or f'"{code}"' in text, code
        assert status in text or status == "400"


def test_documented_metrics_of_the_endpoint_exist() -> None:
    metrics = (ROUTES / "metrics.py").read_text()
    named = set(re.findall(r'"(awares_serve_\w+)"', metrics))
    documented = set(
        re.findall(r"^\| `ray_(\w+?)(?:_total)?` ", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    )
    assert documented == named


def plans() -> list[tuple[str, str]]:
    return re.findall(
        r"```\n\$ awares plan ?([^\n]*)\n(.*?)\n```", (DOCS / "sizing.md").read_text(), re.DOTALL
    )


@pytest.mark.parametrize(
    ("arguments", "output"), plans(), ids=[arguments or "paper" for arguments, _ in plans()]
)
def test_plans_in_the_documentation_are_the_commands_output(arguments: str, output: str) -> None:
    script = "from awares_platform.cli.main import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", script, "plan", *arguments.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.rstrip() == output


def test_there_are_plans() -> None:
    assert [arguments for arguments, _ in plans()][0] == "" and len(plans()) == 3


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_documented_files_exist(page: Path) -> None:
    for path in re.findall(
        r"(?<![\w/.])((?:manifests|jobs|platform|tests)/[\w./-]+\.(?:yaml|toml|py))",
        page.read_text(),
    ):
        assert (ROOT / path).exists(), path
    assert (
        max(len(line) for line in page.read_text().splitlines() if not line.startswith("|")) <= 140
    )


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_documented_values_exist(page: Path) -> None:
    """Check that every documented key of the chart's values exists in values.yaml.

    A documented key is in backticks and contains a dot. Keys below `setup` and `jobs` are not
    checked.
    """
    import yaml

    values = ROOT / "helm/awares-train/values.yaml"
    if not values.exists():
        pytest.skip("the chart is not in this tree")
    tree = yaml.safe_load(values.read_text())
    for key in re.findall(r"`((?:\w+)(?:\.\w+)+)(?:: \w+)?`", page.read_text()):
        first = key.split(".")[0]
        if first not in tree or first in ("setup", "jobs") or "*" in key:
            continue
        node = tree
        for part in key.split("."):
            assert isinstance(node, dict) and (part in node or not node), (
                f"values.yaml has no key {key}"
            )
            node = node.get(part, {})
