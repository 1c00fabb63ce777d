"""Tests that the doctor reports errors and hanging checks as findings, and hides all secrets."""

import io
import json
import threading
import time

import pytest

from awares.errors import AwaresError
from awares_platform.cli.doctor.diagnosis import Diagnosis
from awares_platform.cli.doctor.examine import examine
from awares_platform.cli.doctor.finding import Finding, worst
from awares_platform.cli.doctor.redaction import hidden
from awares_platform.cli.doctor.visit import Visit
from awares_platform.runtime.progress import Progress

SECRET = "sk-very-secret-1"


def failing(error: Exception) -> list[Finding]:
    raise error


def test_a_check_that_hangs_becomes_a_failure_within_its_limit() -> None:
    released = threading.Event()
    started = time.monotonic()
    [found] = examine("store", lambda: [Finding("store", str(released.wait()))], 0.2, "Look there.")
    assert time.monotonic() - started < 5
    released.set()
    assert (found.check, found.status, found.remedy) == ("store", "fail", "Look there.")
    assert found.found == "no result within 0 s"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AwaresError("s3://b/k: denied; check the keys"), "s3://b/k: denied; check the keys"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (RuntimeError("x" * 2000), f"RuntimeError: {'x' * 586} ..."),
    ],
)
def test_an_error_becomes_a_failure_with_the_remedy_of_its_check(
    error: Exception, text: str
) -> None:
    [found] = examine("store", lambda: failing(error), 5, "Look there.")
    assert (found.status, found.found, found.remedy) == ("fail", text, "Look there.")


def test_secrets_are_hidden_in_findings_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", SECRET)
    shown = [Finding("judge", "warn", f"said: wrong key {SECRET}", f"Replace {SECRET}.")]
    [warned] = examine("judge", lambda: shown, 5, "")
    assert (warned.found, warned.remedy) == ("said: wrong key ***", "Replace ***.")
    [failed] = examine("judge", lambda: failing(AwaresError(f"401 for Bearer {SECRET}")), 5, "")
    assert failed.found == "401 for Bearer ***"
    assert hidden("http://me:word@host/v1 and s3://bucket/a@b") == (
        "http://***@host/v1 and s3://bucket/a@b"
    )


def test_a_short_value_and_a_path_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "store")
    monkeypatch.setenv("AWARES_STORE_KEYS", "/dev/null")
    assert hidden("the store at /dev/null") == "the store at /dev/null"


def test_the_checks_after_a_failure_run_and_the_time_limit_holds() -> None:
    said = io.StringIO()
    visit = Visit(1.0, Progress("doctor", stream=said))
    assert not visit.run("store", lambda: failing(AwaresError("down")), "Start it.")
    assert visit.run("clock", lambda: [Finding("clock", "pass", "agrees")], "")
    assert not visit.run("engine", lambda: [Finding("", str(time.sleep(3)))], "Wait.", 60.0)
    assert not visit.run("update", lambda: [Finding("update", "pass", "")], "")
    assert [(one.check, one.status, one.found) for one in visit.findings] == [
        ("store", "fail", "down"),
        ("clock", "pass", "agrees"),
        ("engine", "fail", "no result within 1 s"),
        ("update", "fail", "no time was left for it"),
    ]
    assert "fail: store: down" in said.getvalue()


def test_the_wait_for_nodes_costs_no_time_of_the_checks() -> None:
    visit = Visit(1.0, Progress("doctor", stream=io.StringIO()))
    visit.wait("nodes", lambda: [Finding("nodes", "pass", str(time.sleep(1.5)))], 5, "")
    assert visit.run("clock", lambda: [Finding("clock", "pass", "agrees")], "")


def test_a_failure_of_what_the_setup_does_not_need_is_a_warning() -> None:
    visit = Visit(9.0, Progress("doctor", stream=io.StringIO()))
    assert visit.run("update", lambda: failing(AwaresError("no room")), "", needed=False)
    assert visit.findings[0].status == "warn"


def test_the_worst_node_speaks_for_a_check() -> None:
    found = worst(
        [
            Finding("disk", "pass", "90 GiB", metrics={"node": "a", "free_gib": 90}),
            Finding("clock", "pass", "agrees", metrics={"node": "a"}),
            Finding("disk", "fail", "0 GiB", "Free space.", metrics={"node": "b", "free_gib": 0}),
        ]
    )
    assert [(one.check, one.status, one.found) for one in found] == [
        ("disk", "fail", "b: 0 GiB"),
        ("clock", "pass", "agrees"),
    ]
    assert found[0].metrics == {
        "nodes": [{"node": "a", "free_gib": 90}, {"node": "b", "free_gib": 0}]
    }


FINDINGS = (
    Finding("clock", "pass", "agrees", seconds=0.1),
    Finding("judge", "skip", "no endpoint"),
    Finding("disk", "warn", "2 GiB|left " + "x" * 80, "Free space.", 0.2, {"free_gib": 2.0}),
)


def test_the_table_the_remedies_and_the_json_hold_all_findings() -> None:
    found = Diagnosis("mini", FINDINGS, 12.34)
    lines = found.table().splitlines()
    assert lines[0].split() == ["|", "check", "|", "result", "|", "time", "|", "finding", "|"]
    assert lines[2].split("|")[1:4] == [" clock ", " pass   ", " 0.1 s "]
    assert len({len(line) for line in lines}) == 1 and lines[4].endswith(" ... |")
    assert found.remedies().splitlines() == [
        f"warn: disk: 2 GiB|left {'x' * 80}",
        "  Free space.",
        "3 checks in 12 s: 1 warn, 1 pass, 1 skip",
    ]
    content = json.loads(found.as_json())
    assert (content["status"], content["seconds"], content["run"]) == ("warn", 12.3, "mini")
    assert content["findings"][2]["metrics"] == {"free_gib": 2.0}
    assert Diagnosis("mini", (*FINDINGS, Finding("store", "fail", "")), 1.0).status == "fail"
