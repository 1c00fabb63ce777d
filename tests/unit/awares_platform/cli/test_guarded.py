"""Tests the exit status and the last line of a command that a signal has ended."""

from collections.abc import Callable

import pytest

from awares_platform.cli.guarded import guarded


def on_ctrl_c() -> None:
    raise KeyboardInterrupt


def on_sigterm() -> None:
    raise SystemExit(143)


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        ("curate", "keeps the finished shards"),
        ("sft", "goes on from its last checkpoint"),
        ("evaluate", "begins anew"),
    ],
)
@pytest.mark.parametrize(("end", "status"), [(on_ctrl_c, 130), (on_sigterm, 143)])
def test_the_last_line_says_what_the_next_job_keeps(
    job: str, kept: str, end: Callable[[], None], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(job, end) == status
    assert capsys.readouterr().err.splitlines() == [
        f"awares {job}: interrupted; everything it started has stopped. "
        f"If you run it again, it {kept}."
    ]
