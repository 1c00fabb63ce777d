"""Tests that the README's table of results shows means and ranges over several seeds."""

from typing import Any

from results_table import published


def run(seed: int, accuracy: float) -> dict[str, Any]:
    row = {
        "accuracy": accuracy,
        "rtr_token": 0.4,
        "rtr_pixel": 0.39,
        "call_rate": 0.5,
        "reward": 9.25,
        "latency_p50_s": None,
        "n": 2048,
    }
    return {
        "policies": {"awares": row, "low": row | {"accuracy": 0.5}},
        "wall_s": {"curate": 60.0 + seed, "sft": 540.0},
        "seed": seed,
    }


def test_the_table_has_means_and_ranges_in_the_papers_order() -> None:
    lines = published([run(0, 0.9), run(1, 0.94)]).splitlines()
    assert lines[2] == "| low resolution | 50.0 | 0.400 | 0.390 | 50.0 | 9.25 |  |"
    assert lines[3] == "| AwaRes | 92.0 (90.0 to 94.0) | 0.400 | 0.390 | 50.0 | 9.25 |  |"
    assert (
        lines[5].startswith("Mean and range over seeds 0, 1; 2,048 held-out questions, greedy")
        and "at most 10 minutes" in lines[5]
    )
