"""Runs one check. An exception and an exceeded time limit become findings."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.exceptions import GetTimeoutError, RayTaskError

from awares.errors import AwaresError
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.redaction import redacted

Work = Callable[[], list[Finding]]
BEAT_S = 10.0
"""Seconds between two messages about a check that still runs."""
_LONGEST = 600
"""The largest number of characters of an error in a finding."""


def caught(check: str, work: Work, remedy: str) -> list[Finding]:
    """Run `work` and return its findings with their duration and without secrets.

    If `work` raises an error, the finding states this error and the remedy `remedy`.
    """
    started = time.perf_counter()
    try:
        findings = work()
    # A check may call any library, so it may raise any exception.
    except Exception as error:
        findings = [Finding(check, "fail", explained(error), remedy)]
    seconds = time.perf_counter() - started
    timed = (replace(found, seconds=found.seconds or seconds) for found in findings)
    return [redacted(found) for found in timed]


def examine(
    check: str,
    work: Work,
    limit_s: float,
    remedy: str,
    tell: Callable[[str], Any] = lambda text: None,
) -> list[Finding]:
    """Run `work` in a thread for at most `limit_s` seconds, and return its findings.

    `tell` gets a message every ten seconds. After the limit, the finding is a failure, and the
    thread goes on.
    """
    results: list[list[Finding]] = []
    thread = threading.Thread(
        target=lambda: results.append(caught(check, work, remedy)),
        name=f"doctor-{check}",
        daemon=True,
    )
    started = time.monotonic()
    thread.start()
    while thread.is_alive() and (left := started + limit_s - time.monotonic()) > 0:
        thread.join(min(left, BEAT_S))
        if thread.is_alive() and left > BEAT_S:
            tell(f"{check}: still running after {time.monotonic() - started:.0f} s")
    if results:
        return results[0]
    late = f"no result within {limit_s:.0f} s"
    return [redacted(Finding(check, "fail", late, remedy, time.monotonic() - started))]


def explained(error: BaseException) -> str:
    """Return one line about an error. For the error of a Ray task, the line describes the cause."""
    if isinstance(error, GetTimeoutError):
        return "the actor did not answer in time"
    if isinstance(error, RayTaskError):
        return explained(error.cause) if error.cause is not error else "a Ray task failed"
    text = " ".join(str(error).split())
    shown = text if isinstance(error, AwaresError) else f"{type(error).__name__}: {text}"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."
