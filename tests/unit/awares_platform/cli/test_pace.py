"""Tests the quickstart's progress lines and its estimates of the remaining time.

The tests replay a recorded run.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from awares_platform.cli.pace import Pace, rounded, typical
from awares_platform.config import PlatformConfig

JOBS = ("curate", "sft", "grpo", "evaluate", "serve")
RECORD = Path(__file__).with_name("quickstart_series.txt")
QUIET_S = {"curate": 237, "sft": 213, "grpo": 321, "evaluate": 124, "serve": 36}
BUSY_S = {"curate": 12, "sft": 264, "grpo": 410, "evaluate": 179, "serve": 50}
"""QUIET_S and BUSY_S map each job to its duration in seconds, measured in two more runs.

The machine had little other work during the quiet run, and more during the busy run. Curation took
only 12 seconds in the busy run, because the labels existed already.
"""

Series = list[tuple[float, str, str]]


def lines() -> Iterator[tuple[int, str, str]]:
    """Yield the lines of the recorded run as (seconds since the previous line, job, note)."""
    before = 0
    for line in RECORD.read_text().splitlines()[1:]:
        seconds, job, note = line.split(" ", 2)
        yield int(seconds) - before, job, note
        before = int(seconds)


RECORDED_S = {name: sum(took for took, job, _ in lines() if job == name) for name in JOBS}
"""The duration of each job in the recorded run, in seconds."""


def recorded(taken: Mapping[str, float] = RECORDED_S) -> Series:
    """Return the recorded run as rows (seconds since the start, job, note).

    The times are scaled, so that each job takes the number of seconds that `taken` maps it to.
    """
    rows, now = [], 0.0
    for took, job, note in lines():
        now += took * taken[job] / RECORDED_S[job]
        rows.append((now, job, note))
    return rows


def replay(series: Series, stream: io.StringIO) -> Iterator[tuple[float, float | None, float]]:
    """Replay `series`, and yield a tuple of three durations in seconds for each progress line.

    The durations are the elapsed time, the estimated remaining time and the true remaining time.
    """
    now = 0.0
    pace = Pace(typical(PlatformConfig()), (), stream, lambda: now)
    current = None
    for now, job, note in series:
        if note == "finished":
            pace.finish(job)
            continue
        if job != current:
            current = job
            pace.start(job)
        pace.show(job, note)
        yield now, pace.remaining(job), series[-1][0] - now


@pytest.mark.parametrize(
    ("taken", "share"),
    [(RECORDED_S, 0.1), (QUIET_S, 0.1), (BUSY_S, 0.2)],
    ids=["recorded", "quiet", "busy"],
)
def test_the_time_left_of_a_recorded_quickstart_is_right_and_steady(
    taken: Mapping[str, float], share: float
) -> None:
    rows = list(replay(recorded(taken), io.StringIO()))
    known = [(now, left, truth) for now, left, truth in rows if left is not None]
    assert all(abs(left - truth) <= share * truth + 30 for _, left, truth in known)
    steps = zip(known, known[1:], strict=False)
    jumps = [after[1] - before[1] + after[0] - before[0] for before, after in steps]
    assert max(map(abs, jumps)) < 30, "an estimate may jump by at most 30 s"


def test_no_total_is_stated_before_training_was_measured() -> None:
    stream = io.StringIO()
    rows = list(replay(recorded(), stream))
    first = next(now for now, left, _ in rows if left is not None)
    assert 360 < first < 420
    lines = stream.getvalue().splitlines()
    assert "starting   (0:00 elapsed, time left not known yet)" in lines[0]
    labelling = [line for line in lines if "of curate left, the rest is not known yet" in line]
    assert labelling[2].startswith("[1/5] curate   3072/12288 questions")
    assert "(2:48 elapsed, about 2 min of curate left" in labelling[2]
    assert "tokens/s 2741   (6:28 elapsed, about 15 min left)" in stream.getvalue()


def test_a_machine_of_half_the_speed_gets_twice_the_time() -> None:
    usual = list(replay(recorded(), io.StringIO()))
    twofold = [(2 * now, job, note) for now, job, note in recorded()]
    slow = list(replay(twofold, io.StringIO()))
    for (_, left, _), (_, twice, _) in zip(usual, slow, strict=True):
        assert (left is None) == (twice is None)
        if left is not None:
            assert twice == pytest.approx(2 * left)


def test_smaller_sizes_weigh_less() -> None:
    config = PlatformConfig.model_validate({"grpo": {"steps": 12}, "sft": {"epochs": 4}})
    usual, other = typical(PlatformConfig()), typical(config)
    assert other["grpo"][-1].seconds == pytest.approx(usual["grpo"][-1].seconds / 10)
    assert other["sft"][-1].seconds == pytest.approx(usual["sft"][-1].seconds * 2)
    assert other["curate"] == usual["curate"]


def test_a_job_that_overruns_is_never_negative() -> None:
    now = 0.0
    pace = Pace(typical(PlatformConfig()), JOBS[:2], io.StringIO(), lambda: now)
    pace.start("grpo")
    pace.show("grpo", "0/100 steps")
    now = 100.0
    pace.show("grpo", "50/100 steps")
    usual = pace.remaining("grpo")
    now = 5000.0
    left = pace.remaining("grpo")
    assert left is not None and usual is not None
    assert 0 < left < usual


def test_lines_say_which_job_of_how_many() -> None:
    stream = io.StringIO()
    pace = Pace(typical(PlatformConfig()), ("curate",), stream)
    pace.skip("curate")
    pace.start("sft")
    pace.show("sft", "3/80 steps loss 1.2")
    pace.finish("sft")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/5] curate   finished earlier"
    assert (
        lines[2] == "[2/5] sft      3/80 steps loss 1.2   (0:00 elapsed, time left not known yet)"
    )
    assert lines[3] == "[2/5] sft      done in 0:00"


def test_a_duration_is_as_coarse_as_an_estimate() -> None:
    durations = [3.0, 44.0, 89.0, 91.0, 734.0]
    assert list(map(rounded, durations)) == ["10 s", "40 s", "90 s", "2 min", "12 min"]


def test_a_line_on_a_terminal_fits_it_and_keeps_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    pace = Pace(typical(PlatformConfig()), ("curate", "sft"), stream)
    pace.start("grpo")
    pace.show("grpo", "12/120 steps reward 9.674, accuracy 0.941, RTR 0.328, calls 0.281, KL 0.033")
    pace.finish("grpo")
    first, shown, last = stream.getvalue().split("\r\033[K")[1:]
    times = "   (0:00 elapsed, time left not known yet)"
    assert first == f"[3/5] grpo     starting{times}"
    assert shown == f"[3/5] grpo     12/120 steps reward...{times}" and len(shown) == 79
    assert last == "[3/5] grpo     done in 0:00\n"
