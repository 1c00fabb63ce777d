"""Tests that a job waits for its input, prints for what it waits, and gives up in time."""

import pytest

from awares.errors import DataError, PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.runtime.awaited import awaited


def test_a_job_starts_when_its_input_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    missing: list[Exception] = [
        DataError("no labels: run `awares curate` first"),
        DataError("no labels: run `awares curate` first"),
        PolicyError("no policy 'sft': train it first"),
    ]
    slept: list[float] = []

    def find() -> str:
        if missing:
            raise missing.pop(0)
        return "found"

    assert awaited("grpo", 60, find, poll_s=7, sleep=slept.append) == "found"
    assert slept == [7, 7, 7]
    said = capsys.readouterr().err
    assert said.count("no labels: run `awares curate` first") == 1
    assert said.count("no policy 'sft': train it first") == 1 and "(run.wait_s)" in said


def test_a_job_gives_up_after_its_time() -> None:
    asked: list[int] = []

    def find() -> None:
        asked.append(1)
        raise DataError("no labels")

    with pytest.raises(DataError, match="no labels"):
        awaited("sft", 0.03, find, poll_s=0.01)
    assert len(asked) > 1


def test_by_default_a_missing_input_ends_the_job_at_once() -> None:
    asked: list[int] = []

    def find() -> None:
        asked.append(1)
        raise PolicyError("no policy")

    with pytest.raises(PolicyError):
        awaited("evaluate", PlatformConfig().run.wait_s, find)
    assert asked == [1]


def test_other_errors_end_the_job_at_once() -> None:
    def find() -> None:
        raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        awaited("evaluate", 60, find)
