"""Tests that a job's output is logged, and that its last progress line is repeated."""

import os

from awares_platform.cli import job_process


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
