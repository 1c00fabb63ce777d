"""Tests that a job waits for its input, names the input, and gives up after `run.wait_s`."""

import pytest

from awares.errors import DataError, MissingData, MissingPolicy, PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.runtime.awaited import awaited


def test_a_job_starts_when_its_input_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    missing: list[Exception] = [
        MissingData("no labels: run `awares curate` first"),
        MissingData("no labels: run `awares curate` first"),
        MissingPolicy("no policy 'sft': train it first"),
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
        raise MissingData("no labels")

    with pytest.raises(MissingData, match="no labels"):
        awaited("sft", 0.03, find, poll_s=0.01)
    assert len(asked) > 1


def test_by_default_a_missing_input_ends_the_job_at_once() -> None:
    asked: list[int] = []

    def find() -> None:
        asked.append(1)
        raise MissingPolicy("no policy")

    with pytest.raises(MissingPolicy):
        awaited("evaluate", PlatformConfig().run.wait_s, find)
    assert asked == [1]


@pytest.mark.parametrize("kind", [OSError, PolicyError, DataError])
def test_an_error_that_needs_a_person_ends_the_job_at_once(kind: type[Exception]) -> None:
    asked: list[int] = []

    def find() -> None:
        asked.append(1)
        raise kind("no route")

    with pytest.raises(kind, match="no route"):
        awaited("evaluate", 0.2, find, poll_s=0.01)
    assert asked == [1]
