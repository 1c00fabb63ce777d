"""Tests that `fill` replaces only the text between the begin mark and the end mark."""

from pathlib import Path

import pytest
from marked import fill

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"


def test_a_passage_is_replaced_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{BEGIN}\nstale\n{END}\n\nafter\n")
    fill(path, "table", "fresh")
    assert path.read_text() == f"# Title\n\n{BEGIN}\nfresh\n{END}\n\nafter\n"
    fill(path, "table", "fresh")
    assert path.read_text() == f"# Title\n\n{BEGIN}\nfresh\n{END}\n\nafter\n"


@pytest.mark.parametrize("text", ["no marks", f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_document_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="needs the line <!-- table:begin -->"):
        fill(path, "table", "fresh")
    assert path.read_text() == text
