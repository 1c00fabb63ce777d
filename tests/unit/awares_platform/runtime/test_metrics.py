import json
import logging
from pathlib import Path

import pytest

from awares_platform.runtime.metrics import MetricsWriter, Row, read


def test_rows_are_flat_json_lines(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.report(3, {"reward/mean": 0.5, "learner/grad_norm": float("nan")})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row.pop("time") > 1_700_000_000
    assert row == {"step": 3, "reward/mean": 0.5, "learner/grad_norm": None}


def test_a_resumed_run_overwrites_the_steps_that_it_repeats(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        '{"step": 2, "time": 5, "a/x": 2}',
        '{"step": 1, "time": 1, "a/x": 1, "a/y": 9}',
        '{"step": 1, "time": 7, "a/x": 3}',
    ]
    path.write_text("\n".join([*rows, '{"step": 4, "ti']))
    assert read(path) == [Row(1, 7, {"a/x": 3, "a/y": 9}), Row(2, 5, {"a/x": 2})]


def test_keys_have_an_area(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="area/name"):
        MetricsWriter(tmp_path).report(0, {"loss": 1.0})


def test_a_failing_disk_is_logged_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = MetricsWriter(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    with caplog.at_level(logging.WARNING):
        writer.report(0, {"a/x": 1.0})
        writer.report(1, {"a/x": 1.0})
    assert [record.getMessage() for record in caplog.records] == [caplog.records[0].getMessage()]
    assert "the run goes on" in caplog.text
    (tmp_path / "metrics.jsonl").rmdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "ti')
    writer.report(2, {"a/x": 3.0})
    writer.report(3, {"a/x": 4.0})
    assert [(row.step, row.values["a/x"]) for row in read(writer.path)] == [
        (0, 1.0), (1, 1.0), (2, 3.0), (3, 4.0),
    ]  # fmt: skip
