"""The README's table over seeds, between its marks and nowhere else."""

from pathlib import Path
from typing import Any

import pytest

from awares.errors import DataError
from awares_platform.published import BEGIN, END, fill_readme, published


def run(seed: int, accuracy: float) -> dict[str, Any]:
    row = {"accuracy": accuracy, "rtr_token": 0.4, "rtr_pixel": 0.39, "call_rate": 0.5, "reward": 9.25, "latency_p50_s": None, "n": 2048}
    return {"policies": {"awares": row, "low": row | {"accuracy": 0.5}}, "wall_s": {"curate": 60.0 + seed, "sft": 540.0}, "seed": seed}


def test_means_with_ranges_in_the_papers_order() -> None:
    lines = published([run(0, 0.9), run(1, 0.94)]).splitlines()
    assert lines[2] == "| low resolution | 50.0 | 0.400 | 0.390 | 50.0 | 9.25 |  |"
    assert lines[3] == "| AwaRes | 92.0 (90.0 to 94.0) | 0.400 | 0.390 | 50.0 | 9.25 |  |"
    assert lines[5].startswith("Mean and range over seeds 0, 1; 2,048 held-out questions, greedy") and "at most 10.0 minutes" in lines[5]


def test_the_readme_is_filled_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nstale text\n{END}\n\nafter\n")
    fill_readme(readme, [run(0, 0.9)])
    once = readme.read_text()
    assert once.startswith(f"# Title\n\n{BEGIN}\n| policy") and once.endswith(f"{END}\n\nafter\n") and "stale text" not in once
    fill_readme(readme, [run(0, 0.9)])
    assert readme.read_text() == once
    readme.write_text(f"{END} {BEGIN}")
    with pytest.raises(DataError, match="needs the line"):
        fill_readme(readme, [run(0, 0.9)])
