import io

import pytest

from awares_platform.runtime import progress as module
from awares_platform.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_every_few_seconds_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress("grpo", total=40, unit="steps", stream=stream) as progress:
        for step in range(40):
            clock[0] += 1
            progress.advance(note=f"reward {step / 10:.1f}")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "grpo [    1 s]: 1/40 steps reward 0.0"
    assert lines[1] == "grpo [    6 s]: 6/40 steps reward 0.5"
    assert lines[-1] == "grpo [   40 s]: 40/40 steps done"
    assert len(lines) == 9


def test_a_failure_prints_no_done(clock: list[float]) -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress("sft", stream=stream) as progress:
        progress.say("loading the policy")
        progress.advance()
        raise RuntimeError
    assert stream.getvalue().splitlines() == [
        "sft [    0 s]: loading the policy",
        "sft [    0 s]: 1",
    ]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("curate", stream=stream) as progress:
        progress.total = 2
        progress.say("labels [LR] stay as they are")
        progress.advance(2, "80 % LR [sic]")
    assert "labels [LR] stay as they are" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_a_terminal_counts_only_work_that_has_units() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("serve", stream=stream) as progress:
        progress.say("starting the engine")
    assert "starting the engine" in stream.getvalue()
    assert "0/?" not in stream.getvalue()


def test_a_job_may_print_a_line_for_every_step(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress("grpo", total=3, unit="steps", stream=stream, quiet_s=0.0) as progress:
        for _ in range(3):
            progress.advance(note="reward 0.5")
    assert len(stream.getvalue().splitlines()) == 4
