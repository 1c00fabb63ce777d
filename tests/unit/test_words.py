"""Tests that lines are short, packages have docstrings, and texts name only existing documents."""

import ast
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_COLUMNS = 100
TEXT = (".py", ".md", ".toml", ".yaml", ".yml", ".tpl", ".cfg", ".sh", ".Dockerfile", "Makefile")
SHORT = (*TEXT, ".css", ".ci/run", "NOTES.txt")
"""The endings of the names of files in which all lines must be short. People write these files.

Other text files hold data (*.json, *.jinja, *.svg) or locked packages (*.txt).
"""
RENDERED = "tests/unit/helm/golden/"
"""The directory of the manifests that helm renders. Their lines may be long."""
OUTSIDE = re.compile(
    r"\b(?:style|design)\.md\b|(?<![\w./-])shared/(?:design|style|facts)|\bissues? #?\d+", re.I
)
"""Matches the names of documents that are not in the repository."""


def tracked(*suffixes: str) -> list[str]:
    """Return the paths of tracked files with one of these suffixes, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in listed if name.endswith(suffixes) and (ROOT / name).is_file()]


def long_lines(name: str) -> list[int]:
    """Return the numbers of the lines with more than 100 bytes in UTF-8.

    In Markdown, only the lines that `prose` keeps count.
    """
    lines = (ROOT / name).read_text("utf-8").splitlines()
    kept = prose(lines) if name.endswith(".md") else lines
    return [number for number, line in enumerate(kept, 1) if len(line.encode()) > MOST_COLUMNS]


def prose(lines: Sequence[str]) -> list[str]:
    """Return the lines of a Markdown file. Each line that is allowed to be long becomes empty.

    Lines may be long in tables, quotes and fenced blocks, and between `<!-- NAME:begin -->` and
    `<!-- NAME:end -->`.
    """
    kept, fenced, filled = [], False, False
    for line in lines:
        fenced ^= line.startswith("```")
        filled = (filled or ":begin -->" in line) and ":end -->" not in line
        kept.append("" if fenced or filled or line.startswith(("|", "> ")) else line)
    return kept


def test_no_line_is_longer_than_100_columns() -> None:
    names = [name for name in tracked(*SHORT) if not name.startswith(RENDERED)]
    long = {name: long_lines(name) for name in names}
    assert not {name: numbers for name, numbers in long.items() if numbers}


def test_only_lines_of_prose_count_in_markdown() -> None:
    text = "prose\n| row |\n> message\n```\noutput\n```\n<!-- a:begin -->\nfilled\n<!-- a:end -->"
    kept = [line for line in prose(text.splitlines()) if line]
    assert kept == ["prose", "```", "<!-- a:end -->"]


@pytest.mark.parametrize("text", ["style.md, rule 10", "see design.md", "Issue 4", "shared/facts"])
def test_references_to_outside_documents_are_found(text: str) -> None:
    assert OUTSIDE.search(text)


def test_no_text_names_a_document_outside_the_repository() -> None:
    here = Path(__file__).relative_to(ROOT).as_posix()
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in tracked(*TEXT)
        if name != here
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
        if OUTSIDE.search(line)
    ]
    assert not found


def test_every_package_has_a_docstring() -> None:
    packages = [name for name in tracked("__init__.py") if name.startswith(("awares", "platform"))]
    assert packages
    assert not [
        name for name in packages if not ast.get_docstring(ast.parse((ROOT / name).read_text()))
    ]
