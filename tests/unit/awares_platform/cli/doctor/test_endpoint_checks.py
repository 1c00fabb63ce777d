"""Tests the doctor's checks of the judge and the grounding against a local endpoint.

The endpoint answers, refuses the request or never answers.
"""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from awares_platform.cli.doctor.endpoints import (
    check_endpoints,
    check_grounding_endpoint,
    check_judge_endpoint,
)
from awares_platform.cli.doctor.examine import examine
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.visit import Visit
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.runtime.progress import Progress

KEY = "sk-the-key-of-the-judge"


class Chat(http.server.BaseHTTPRequestHandler):
    """A handler that replies with the status and the text in the server's attribute `reply`.

    If `reply` is None, the handler sends no reply.
    """

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.server.reply is None:
            self.server.stopped.wait(30)
            return
        status, text = self.server.reply
        body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Callable[[tuple[int, str] | None], EndpointConfig]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(reply: tuple[int, str] | None) -> EndpointConfig:
        server.reply = reply
        return EndpointConfig(
            url=f"http://127.0.0.1:{server.server_port}/v1",
            model="m",
            api_key_variable="JUDGE_API_KEY",
            retry_budget_s=0.5,
        )

    yield start
    server.stopped.set()
    server.shutdown()
    server.server_close()


def judged(endpoint: EndpointConfig) -> Finding:
    curate = CurateConfig(judge="endpoint", judge_endpoint=endpoint, both_wrong="LR")
    return examine("judge", partial(check_judge_endpoint, curate), 2.0, "Start it.")[0]


def grounded(endpoint: EndpointConfig) -> Finding:
    curate = CurateConfig(grounding="endpoint", grounding_endpoint=endpoint)
    return examine("grounding", partial(check_grounding_endpoint, curate), 2.0, "Start it.")[0]


@pytest.mark.parametrize(
    ("ask", "reply", "status"),
    [
        (judged, "2", "pass"),
        (judged, "The second one.", "warn"),
        (grounded, '{"question": [], "answer": [[1, 2, 30, 40]]}', "pass"),
        (grounded, "I see nothing", "warn"),
    ],
)
def test_an_endpoint_that_answers_is_judged_by_its_answer(
    endpoint: Callable[..., EndpointConfig],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[EndpointConfig], Finding],
    reply: str,
    status: str,
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    found = ask(endpoint((200, reply)))
    assert found.status == status
    assert "m at http://127.0.0.1" in found.found


@pytest.mark.parametrize("ask", [judged, grounded])
def test_an_endpoint_that_hangs_is_a_failure_within_the_limit(
    endpoint: Callable[..., EndpointConfig],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[EndpointConfig], Finding],
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    started = time.monotonic()
    found = ask(endpoint(None))
    assert time.monotonic() - started < 6
    assert (found.status, found.remedy) == ("fail", "Start it.")
    assert "no result within 2 s" in found.found


def test_a_refusal_fails_and_does_not_show_the_key(
    endpoint: Callable[..., EndpointConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    found = judged(endpoint((401, f"no such key: {KEY}")))
    assert found.status == "fail" and "401" in found.found
    assert KEY not in str(found) and "***" in found.found
    monkeypatch.delenv("JUDGE_API_KEY")
    assert "JUDGE_API_KEY, which is not set" in judged(endpoint((200, "2"))).found


def test_without_endpoints_the_checks_are_skipped_and_a_wrong_part_fails() -> None:
    [found] = check_judge_endpoint(CurateConfig())
    assert found.status == "skip"
    [found] = check_grounding_endpoint(CurateConfig())
    assert found.status == "skip"
    missing = CurateConfig(judge="no_such_module:Judge")
    [found] = examine("judge", partial(check_judge_endpoint, missing), 5.0, "Correct it.")
    assert found.status == "fail" and "no_such_module" in found.found


def test_the_prompts_are_read_here_and_a_missing_one_is_one_failure(
    endpoint: Callable[..., EndpointConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    (tmp_path / "judge.txt").write_text("{question} {reference} {answer_1} {answer_2}")
    curate = CurateConfig(
        judge="endpoint",
        judge_endpoint=endpoint((200, "2")),
        judge_prompt="judge.txt",
        grounding_prompt="boxes.txt",
        both_wrong="LR",
    )
    (elsewhere := tmp_path / "elsewhere").mkdir()

    def call(check: Callable[[CurateConfig], list[Finding]], texts: CurateConfig) -> list[Finding]:
        monkeypatch.chdir(elsewhere)
        try:
            return check(texts)
        finally:
            monkeypatch.chdir(tmp_path)

    monkeypatch.chdir(tmp_path)
    visit = Visit(60.0, Progress("doctor"))
    check_endpoints(visit, curate, call)
    judge, grounding = visit.findings
    assert judge.status == "pass"
    assert grounding.status == "fail"
    assert "curate.grounding_prompt=boxes.txt cannot be read" in grounding.found
