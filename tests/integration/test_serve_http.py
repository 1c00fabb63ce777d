"""Tests `awares serve` over HTTP with real Ray Serve, real vLLM and the bundled policy."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import openai
import psutil
import pytest

from awares.mini import generate_split
from awares_platform.cli.ask import ask
from awares_platform.cli.quickstart import prepare
from awares_platform.config import load
from awares_platform.runtime.job_lease import JobRefused
from awares_platform.runtime.ports import free_port
from awares_platform.runtime.session import store_session
from awares_platform.serve.keys import ApiKey, KeysFile, hashed
from tests.integration.asking_browser import ask_example
from tests.integration.hostile_corpus import corpus
from tests.integration.serving_process import (
    ROOT,
    TOKEN,
    Served,
    chat_body,
    exported,
    post,
    serve_command,
)
from tests.processes import descendants, family, gone

pytestmark = [pytest.mark.integration, pytest.mark.slow]
STOP_S, HANG_S = 90, 15
ENGINE, REPLICA = "VLLM::EngineCore", "ray::ServeReplica:awares:awares"
OUR_LOG = re.compile(r"I \d\d:\d\d:\d\d awares_platform\.runtime\.")
"""Matches the beginning of a log line about this machine, such as the chosen engine.dtype."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("serve")
    data, sample = next(iter(generate_split("test", 1, seed=5)))
    image = directory / "scene.png"
    image.write_bytes(data)
    port = free_port()
    limits = (
        "serve.max_ongoing_requests=1",
        "serve.max_queued_requests=2",
        "serve.retry_after_s=3",
        "serve.max_request_bytes=1_000_000",
        f"run.hang_timeout_s={HANG_S}",
    )
    keys = _keys_file(directory)
    write_keys(keys, "limited")
    access = ("serve.token_env=TEST_TOKEN", f"serve.keys_file={keys}")
    process = serve_command(directory, port, *access, *limits)
    assert process.stdout is not None
    try:
        said: list[str] = []
        for line in iter(process.stdout.readline, ""):
            said.append(line)
            if line.startswith("serving "):
                break
        assert said and said[-1].startswith("serving base of run mini"), "".join(said)
        yield Served(
            process,
            family(psutil.Process(process.pid)),
            f"http://127.0.0.1:{port}",
            image,
            sample.question,
            said,
        )
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def test_a_fresh_quickstart_does_not_delete_a_run_that_is_served(served: Served) -> None:
    directory = f"run.directory={served.image.parent / 'runs'}"
    with store_session(load(ROOT / "jobs/configs/mini.toml", [directory])) as config:
        run = config.run.directory / config.run.name
        holder = f"`awares serve`, process {served.process.pid} on "
        with pytest.raises(JobRefused, match=f"/serve/.* is in use by {holder}"):
            prepare(config, run, fresh=True)
        assert (run / "serve" / "config.json").exists()


def _keys_file(directory: Path) -> Path:
    return directory / "keys.json"


def write_keys(path: Path, *keys: str) -> None:
    """Write a keys file. A key's name is the key itself, and its limit is one request a minute."""
    entries = (ApiKey(name=key, sha256=hashed(key), requests_per_minute=1) for key in keys)
    KeysFile(keys=tuple(entries)).write(path)


def test_keys_have_limits_and_change_without_a_restart(served: Served) -> None:
    assert post(served, chat_body(served), token="limited")[0] == 200
    status, headers, text = post(served, chat_body(served), token="limited")
    assert (status, json.loads(text)["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["retry-after"]) <= 60
    assert post(served, chat_body(served), token="added")[0] == 401
    write_keys(_keys_file(served.image.parent), "added")
    deadline = time.monotonic() + 30
    while post(served, chat_body(served), token="added")[0] == 401:
        assert time.monotonic() < deadline, "the replica does not read the changed keys file"
        time.sleep(0.2)
    assert post(served, chat_body(served), token="limited")[0] == 401
    assert post(served, chat_body(served))[0] == 200


def test_the_terminal_names_each_step_of_the_start(served: Served) -> None:
    lines = [line for line in served.printed if not OUR_LOG.match(line)]
    *steps, ready = [re.sub(r"^serve \[ *\d+ s\]: ", "serve: ", line) for line in lines]
    assert steps[:2] == [
        "serve: starting Ray Serve\n",
        "serve: starting the engine with policy base of run mini\n",
    ]
    assert set(steps[2:]) <= {"serve: the engine still starts\n"}
    assert ready == f"serving base of run mini at {served.url}/v1/chat/completions\n"


def test_a_question_is_answered_with_its_bill(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)
    reply = ask(served.image, served.question, served.url, "TEST_TOKEN")
    assert reply.answer or reply.stop != "answer"
    assert reply.visual_tokens >= 4 and 0 < reply.rtr_token <= 2.25 and reply.turns in (1, 2)
    assert (
        reply.prompt_tokens > reply.visual_tokens
        and reply.completion_tokens > 0
        and reply.latency_s > 0
    )

    status, _, text = post(served, chat_body(served))
    extension = json.loads(text)["awares"]
    assert status == 200 and extension["weight_version"] == 0
    assert " ".join(sorted(extension)) == (
        "boxes crops full_tokens image_size image_sizes latency_s notes recoveries rtr_pixel"
        " rtr_token stop times turns views visual_tokens weight_version"
    )


def test_a_person_gets_the_page(served: Served) -> None:
    """Get the page's files and a scaled-down image through Ray Serve's real HTTP proxy."""
    for path, word in (
        ("/", "Ask about an image"),
        ("/page.js", "low-view"),
        ("/page.css", ":root"),
    ):
        with urllib.request.urlopen(f"{served.url}{path}", timeout=60) as response:
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert word in response.read().decode()
    headers = {"authorization": f"Bearer {TOKEN}"}
    address, data = f"{served.url}/low-view", served.image.read_bytes()
    with urllib.request.urlopen(urllib.request.Request(address, data, headers)) as response:
        assert response.read().startswith(b"\x89PNG")


def test_a_person_gets_an_answer_in_a_browser(served: Served) -> None:
    for answer, tokens in ask_example(served.url, TOKEN).values():
        assert answer and re.match(r"\d+ visual tokens? \d+ % of \d+", tokens)


def test_another_process_does_not_stop_the_store(served: Served) -> None:
    weed = next(one for one in served.family if one.name() == "weed")
    code = "from awares_platform.cli.main import main; main()"
    settings = ["--config", str(ROOT / "jobs/configs/mini.toml"), "run.directory=runs"]
    listed = subprocess.run(
        [sys.executable, "-c", code, "weights", "ls", "mini", *settings],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
        cwd=served.image.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "run mini has published no weights" in listed.stderr
    assert weed.is_running() and served.process.poll() is None


def test_the_official_client_streams_and_gets_json(served: Served) -> None:
    """Send requests with text alone, with two images, for a stream, and with a JSON schema."""
    client = openai.OpenAI(api_key=TOKEN, base_url=f"{served.url}/v1", max_retries=0)
    body = chat_body(served)
    content = body["messages"][0]["content"]
    hello = client.chat.completions.create(
        model="awares", messages=[{"role": "user", "content": "hello"}]
    )
    assert hello.choices[0].message.content and not hello.choices[0].message.refusal
    body["messages"][0]["content"] = [content[0], *content]
    two = client.chat.completions.create(**body, logprobs=True, seed=2**63 - 1, temperature=1.0)
    assert two.choices[0].logprobs is not None and two.choices[0].logprobs.content
    chunks = list(client.chat.completions.create(**chat_body(served), stream=True))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert any(chunk.choices[0].delta.content for chunk in chunks)
    schema = {
        "type": "object",
        "properties": {"digit": {"enum": [1, 2]}},
        "required": ["digit"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "digit", "schema": schema}}
    bound = client.chat.completions.create(
        **{**chat_body(served), "max_tokens": 64}, response_format=asked
    )
    assert json.loads(bound.choices[0].message.content or "")["digit"] in (1, 2)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_nothing_is_answered(served: Served, token: str | None) -> None:
    status, headers, text = post(served, chat_body(served), token)
    assert status == 401 and headers["www-authenticate"] == "Bearer" and TOKEN not in text


def test_bad_input_through_the_proxy_is_named(served: Served) -> None:
    status, _, text = post(served, chat_body(served, b"rubbish"))
    assert status == 400 and "not a readable image" in text
    status, _, text = post(served, chat_body(served, os.urandom(1_000_000)))
    assert status == 413 and "over 1000000 bytes" in text


def test_no_header_breaks_the_proxy(served: Served) -> None:
    for name in ("x-request-id", "serve_multiplexed_model_id", "x-session-id"):
        request = urllib.request.Request(f"{served.url}/healthz", headers={name: "caf\xe9"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200 and response.headers["x-request-id"].isascii()


def test_broken_http_is_refused_at_once(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as sock:
        sock.settimeout(5)
        sock.sendall(b"GET /\r\n")
        assert sock.recv(4096).startswith(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json"
        )


def test_the_hostile_corpus_gets_the_right_statuses(served: Served) -> None:
    cases = list(corpus())
    assert len(cases) > 400
    wrong = []
    for case in cases:
        status, content = case.send(served.url, TOKEN)
        if status not in case.allowed or (status >= 400 and len(content) > 1000):
            wrong.append(f"{case.name}: {status} {content[:300]!r}")
    assert not wrong, "\n".join(wrong)
    assert post(served, chat_body(served))[0] == 200


def _healthy(served: Served) -> int:
    """Return the status of /healthz, which must come within 8 seconds."""
    try:
        with urllib.request.urlopen(f"{served.url}/healthz", timeout=8) as response:
            return response.status
    except urllib.error.HTTPError as error:
        assert error.headers["retry-after"] and "message" in json.load(error)["error"]
        return error.code


def test_a_full_queue_says_come_back_later(served: Served) -> None:
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(post, served, chat_body(served)) for _ in range(24)]
        assert _healthy(served) == 200
        replies = [one.result() for one in asked]
    assert {status for status, _, _ in replies} == {200, 503}
    refused = [reply for reply in replies if reply[0] == 503]
    assert all(headers["retry-after"] == "3" for _, headers, _ in refused)
    assert all(json.loads(text)["error"]["code"] == "overloaded" for _, _, text in refused)


def test_what_was_answered_and_refused_is_on_the_metrics_page(served: Served) -> None:
    """The test polls the metrics page, because Ray workers send their counts only every 10 s."""
    status, _, text = post(served, chat_body(served))
    used = json.loads(text)["awares"]["visual_tokens"]
    post(served, chat_body(served), token="wrong")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and ("requests_total", "401") not in (
        counted := exported(served)
    ):
        time.sleep(1)
    assert (
        status == 200
        and counted["requests_total", "200"] >= 1
        and counted["requests_total", "401"] >= 1
    )
    assert counted["visual_tokens_total", ""] >= used and counted["full_tokens_total", ""] > 0
    assert counted["latency_seconds_count", "200"] == counted["requests_total", "200"]


def test_a_taken_port_is_one_clear_error_before_the_engine_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = serve_command(tmp_path, port)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    start = f"awares serve: serve.port={port} on 127.0.0.1 cannot be used: another process listens"
    assert said.strip().splitlines()[-1].startswith(start)
    assert "Traceback" not in said


def _wait_for(served: Served, status: int, within_s: float) -> float:
    """Wait until /healthz has `status`. Return the seconds that this took."""
    started = time.monotonic()
    while _healthy(served) != status:
        assert time.monotonic() - started < within_s, f"/healthz did not become {status}"
        time.sleep(0.5)
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("process", "number", "noticed_s"),
    [
        (ENGINE, signal.SIGSTOP, 2 * HANG_S + 30),
        (REPLICA, signal.SIGSTOP, 2 * HANG_S + 30),
        (REPLICA, signal.SIGKILL, 30),
    ],
)
def test_a_replica_that_fails_is_replaced(
    served: Served, process: str, number: int, noticed_s: float
) -> None:
    """Clients get 503 with Retry-After until the new replica runs."""
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(post, served, chat_body(served, n=8)) for _ in range(3)]
        time.sleep(0.2)
        [replica] = descendants(lambda line: line.startswith(REPLICA), served.process.pid)
        [engine] = descendants(lambda line: line.startswith(ENGINE), served.process.pid)
        victim = engine if process == ENGINE else replica
        victim.send_signal(number)
        noticed = _wait_for(served, 503, noticed_s)
        for status, headers, text in (one.result() for one in asked):
            assert status in (200, 503), text
            assert status == 200 or (headers["retry-after"] and json.loads(text)["error"])
    status, headers, _ = post(served, chat_body(served))
    assert status == 503 and headers["retry-after"]
    assert not gone([replica, engine], within_s=30), "the old replica still runs"
    recovered = _wait_for(served, 200, 120)
    print(f"{process} {number}: noticed after {noticed:.1f} s, back after {recovered:.1f} s more")
    assert post(served, chat_body(served))[0] == 200


def test_sigterm_answers_what_was_accepted_and_leaves_nothing(served: Served) -> None:
    """Signal the whole process group, as a shell does. This test is last: it ends the endpoint."""
    late: list[tuple[int, dict[str, str], str]] = []
    now = family(psutil.Process(served.process.pid))
    with ThreadPoolExecutor(3) as pool:
        assert post(served, chat_body(served))[0] == 200
        accepted = [pool.submit(post, served, chat_body(served, n=8)) for _ in range(3)]
        time.sleep(0.2)
        os.killpg(served.process.pid, signal.SIGTERM)
        stopped = time.monotonic()
        time.sleep(1)
        with suppress(OSError, http.client.HTTPException):
            while True:
                late.append(post(served, chat_body(served)))
        statuses = [reply.result()[0] for reply in accepted]
    assert statuses == [200] * 3, "the requests in flight and in the queue must finish"
    refused = [reply for reply in late if reply[0] != 200]
    assert refused and all(status == 503 for status, _, _ in refused)
    assert all(headers["retry-after"] for _, headers, _ in refused)
    assert served.process.wait(STOP_S) == 0
    print(f"stopped after {time.monotonic() - stopped:.1f} s, {len(refused)} requests refused")
    recorded = served.image.parent / "runs" / "mini" / "serve"
    assert {"config.json", "versions.json", "metrics.jsonl"} <= {
        path.name for path in recorded.iterdir()
    }
    assert served.process.stdout is not None
    printed = served.process.stdout.read().splitlines()
    # The lines with "(raylet)" come from Ray. They report replicas that an earlier test has killed.
    assert [line for line in printed if "(raylet)" not in line] == [
        f"open it:  {served.url}/",
        f"ask it:   awares ask IMAGE 'QUESTION' --endpoint {served.url} --token-env TEST_TOKEN",
        "stop it:  Ctrl-C",
        "stopping: no new requests, those in flight finish",
    ]
    foreign = recorded.with_suffix(".log").read_text("utf-8")
    assert "Started Serve in namespace" in foreign and "Deleting app" in foreign
    assert not gone(now | served.family, within_s=10)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(served.url.rpartition(":")[2])))
