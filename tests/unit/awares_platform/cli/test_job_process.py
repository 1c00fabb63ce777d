"""The printed progress of the quickstart's jobs, and its estimates."""

import io
import os

import pytest

from awares_platform.cli import job_process
from awares_platform.cli.job_process import EXPECTED_S, Pace

JOBS = ("curate", "sft", "grpo", "evaluate", "serve")


def test_without_progress_the_estimate_is_the_expected_time():
    pace = Pace(JOBS, finished=(), stream=io.StringIO())
    pace.start("curate")
    assert pace.remaining("curate", 30.0) == sum(EXPECTED_S.values()) - 30.0


def test_progress_of_a_job_replaces_its_expectation():
    pace = Pace(JOBS, finished=("curate", "sft", "evaluate"), stream=io.StringIO())
    pace.start("grpo")
    pace.show("grpo", "10/40 steps reward 8.1")
    assert pace.remaining("grpo", 50.0) == pytest.approx(150.0 + EXPECTED_S["serve"])


def test_a_job_that_overruns_is_never_negative():
    pace = Pace(JOBS, finished=JOBS, stream=io.StringIO())
    pace.start("serve")
    assert pace.remaining("serve", 1e4) == 5.0


def test_lines_say_which_job_of_how_many():
    stream = io.StringIO()
    pace = Pace(JOBS, finished=("curate",), stream=stream)
    pace.skip("curate")
    pace.start("sft")
    pace.show("sft", "3/80 steps loss 1.2")
    pace.finish("sft")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/5] curate   finished earlier"
    assert lines[2].startswith("[2/5] sft      3/80 steps loss 1.2   (0:00 elapsed, about ")
    assert lines[3] == "[2/5] sft      done in 0:00"


def test_output_is_logged_and_progress_is_shown_and_repeated(monkeypatch, tmp_path):
    monkeypatch.setattr(job_process, "BEAT_S", 0.05)
    read, write = os.pipe()
    kept = tmp_path / "sft.log"
    with os.fdopen(read) as output, os.fdopen(write, "w") as job:
        job.write("vLLM says much\nsft [    3 s]: 4/80 steps loss 1.2\n")
        job.flush()
        notes = job_process._notes(output, kept)
        assert next(notes) == "4/80 steps loss 1.2"
        assert next(notes) == "4/80 steps loss 1.2"
        job.write("sft [   90 s]: done\n")
        job.close()
        assert list(notes)[0] == "done"
    assert (
        kept.read_text()
        == "vLLM says much\nsft [    3 s]: 4/80 steps loss 1.2\nsft [   90 s]: done\n"
    )
