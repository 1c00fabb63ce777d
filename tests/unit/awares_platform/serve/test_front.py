"""Tests the HTTP front of Ray Serve's proxies on a real uvicorn server, over raw sockets."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ServeStatus,
)
from starlette.types import Message, Receive, Scope, Send

from awares_platform.runtime.ports import free_port
from awares_platform.serve import connection, front
from awares_platform.serve.front import Front
from awares_platform.serve.outlook import Availability, Outlook
from awares_platform.serve.proxy import INGRESS, UPDATE_S, available

HOST = b"host: a\r\n"


@dataclass
class Behind:
    """The ASGI application behind the front, in place of Ray Serve's proxy."""

    port: int
    kind: str = "answer"
    """How the application answers."""
    availability: Availability = Availability.READY
    """The state of the replicas, as the front sees it."""
    draining: bool = False
    """Whether the endpoint is about to stop, as the front sees it."""
    bodies: list[int] = field(default_factory=list)
    """The sizes of the request bodies that the application got."""
    reports: list[int] = field(default_factory=list)
    """The numbers of requests in flight that the front reported."""
    left: int = 0
    """The number of clients that disconnected during a hanging request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert message["more_body"] is False
        self.bodies.append(len(message["body"]))
        if self.kind == "die":
            return
        if self.kind == "crash":
            raise RuntimeError("no replica")
        if self.kind == "hang":
            message = await receive()
            self.left += message["type"] == "http.disconnect"
            return
        if self.kind == "slow":
            await asyncio.sleep(2.5)
        if self.kind == "pieces":
            await self._reply_in_pieces(send)
            return
        await self._reply(send)

    async def _reply_in_pieces(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"ok"', "more_body": True})
        await asyncio.sleep(1.3)
        await send({"type": "http.response.body", "body": b": 1}"})

    async def _reply(self, send: Send) -> None:
        status = {"full": 503, "lost": 404, "text": 500}.get(self.kind, 200)
        kind = b"application/json" if status == 200 else b"text/plain"
        retry = [(b"retry-after", b"7")] if self.kind == "full" else []
        start: Message = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [(b"content-type", kind), *retry]})
        await send({"type": "http.response.body", "body": b'{"ok": 1}'})

    def ask(self, data: bytes, wait_s: float = 8.0) -> tuple[int, dict[str, str], Any]:
        """Send raw bytes to the front. Return the status, headers and JSON body of the reply."""
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.settimeout(wait_s)
            sock.sendall(data)
            reply = b""
            while piece := sock.recv(1 << 16):
                reply += piece
        while reply.startswith(b"HTTP/1.1 100"):
            reply = reply.partition(b"\r\n\r\n")[2]
        head, _, body = reply.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        if headers.get("transfer-encoding") == "chunked":
            body = body.split(b"\r\n")[1]
        return int(lines[0].split()[1]), headers, json.loads(body)


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    app = Behind(free_port())
    monkeypatch.setattr(connection, "HEADER_S", 1.0)
    monkeypatch.setattr(front, "BODY_S", 1.0)
    outlook = Outlook(lambda: app.availability, lambda: app.draining, app.reports.append)
    connection.use()
    config = uvicorn.Config(Front(app, outlook), port=app.port, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield app
    server.should_exit = True
    thread.join(10)


def _request(method: str = "POST", path: str = "/", body: bytes = b"", more: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n".encode()
    return head + b"connection: close\r\n" + HOST + more + b"\r\n" + body


def test_a_request_passes_whole(behind: Behind) -> None:
    assert behind.ask(_request(body=b"x" * 300_000))[::2] == (200, {"ok": 1})
    assert behind.ask(_request(body=b"four", more=b"expect: 100-continue\r\n"))[0] == 200
    chunked = b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert behind.ask(b"POST / HTTP/1.1\r\n" + HOST + chunked)[0] == 200
    assert behind.bodies == [300_000, 4, 3]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /caf\xe9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nhost", 408),
        (b"POST / HTTP/1.1\r\ncontent-length: 30\r\n\r\nabc", 408),
        (b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n", 408),
    ],
)
def test_broken_http_is_answered_in_json(behind: Behind, data: bytes, status: int) -> None:
    started = time.monotonic()
    answered, headers, body = behind.ask(data)
    assert (answered, headers["content-type"]) == (status, "application/json")
    assert body["error"]["message"] and headers["connection"] == "close"
    assert time.monotonic() - started < 4 and behind.bodies == []


def _raw(behind: Behind, *pieces: tuple[bytes, float]) -> bytes:
    """Send pieces, with a pause in seconds after each piece. Return all bytes of the replies."""
    with socket.create_connection(("127.0.0.1", behind.port)) as sock:
        sock.settimeout(8)
        for piece, wait_s in pieces:
            sock.sendall(piece)
            time.sleep(wait_s)
        reply = b""
        while more := sock.recv(1 << 16):
            reply += more
    return reply


@pytest.mark.parametrize(
    ("earlier", "broken", "status"),
    [
        (1, b"\x00\x00\x00\r\n\r\n", 400),
        (1, b"GET / HTTP/1.1\r\nhost", 408),
        (1, b"GET / HTTP/1.1\r\na: " + b"b" * 70_000, 431),
        (1, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n", 400),
        (2, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n", 400),
    ],
)
def test_a_broken_request_waits_for_the_answers_before_it(
    behind: Behind, earlier: int, broken: bytes, status: int
) -> None:
    """Check a broken request that arrives between the two pieces of the first answer."""
    behind.kind = "pieces"
    first = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    reply = _raw(behind, (first * earlier, 0.2), (broken, 0.0))
    *before, last = [b"HTTP/1.1 " + part for part in reply.split(b"HTTP/1.1 ")[1:]]
    assert [part.partition(b"\r\n\r\n")[2] for part in before] == [b'{"ok": 1}'] * earlier
    assert last.startswith(b"HTTP/1.1 %d " % status) and b"connection: close" in last
    assert json.loads(last.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_the_time_of_a_header_begins_after_the_answer_before_it(behind: Behind) -> None:
    behind.kind = "pieces"
    first = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    reply = _raw(
        behind, (first + first[:20], 1.5), (first[20:-2] + b"connection: close\r\n\r\n", 0)
    )
    assert reply.count(b"HTTP/1.1 200") == 2 and b"408" not in reply


@pytest.mark.parametrize("after", [b"", b"\r\n"])
def test_an_idle_connection_is_closed_though_a_blank_line_comes(
    behind: Behind, after: bytes
) -> None:
    """Check that a blank line does not keep an idle connection open.

    uvicorn closes idle connections after 5 seconds, but any byte stops its timer.
    """
    first = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    reply = _raw(behind, (first, 0.3), (after, 0.0))
    assert reply.count(b"HTTP/1.1 200") == 1 and b"invalid_http" not in reply


def test_the_body_of_a_request_does_not_count_for_the_header_of_the_next(behind: Behind) -> None:
    body = b"x" * 200_000
    head = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n" % len(body) + HOST + b"\r\n"
    second = _request(body=b"four")
    reply = _raw(behind, (head + body + second[:9], 0.3), (second[9:], 0.0))
    assert reply.count(b"HTTP/1.1 200") == 2


def test_an_endless_header_is_cut(behind: Behind) -> None:
    with socket.create_connection(("127.0.0.1", behind.port)) as sock:
        sock.settimeout(8)
        sock.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for _ in range(1000):
                sock.sendall(b"a: " + b"b" * 1000 + b"\r\n")
                time.sleep(0.001)


def test_slow_clients_do_not_delay_a_good_one(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEADER_S", 60.0)
    monkeypatch.setattr(front, "BODY_S", 60.0)
    head = b"POST / HTTP/1.1\r\ncontent-length: 1000\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", behind.port)) for _ in range(200)]
    try:
        for index, sock in enumerate(slow):
            sock.sendall(head if index % 2 else head[:20])
        started = time.monotonic()
        assert behind.ask(_request(body=b"good"))[0] == 200
        assert time.monotonic() - started < 5 and behind.bodies == [4]
    finally:
        for sock in slow:
            sock.close()


def test_too_many_connections_are_refused(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 3)
    held = [socket.create_connection(("127.0.0.1", behind.port)) for _ in range(3)]
    time.sleep(0.1)
    status, headers, _ = behind.ask(b"")
    assert (status, headers["retry-after"]) == (503, "1")
    for sock in held:
        sock.close()


def test_the_bodies_of_all_requests_have_one_bound(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "MOST_HELD", 100_000)
    assert behind.ask(_request(body=b"x" * 99_000))[0] == 200
    status, headers, body = behind.ask(_request(body=b"x" * 101_000))
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "overloaded")
    assert behind.ask(_request(body=b"x" * 99_000))[0] == 200


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [
        ("die", 503, "1"),
        ("crash", 503, "1"),
        ("full", 503, "7"),
        ("lost", 503, "1"),
        ("text", 500, None),
    ],
)
def test_what_serve_says_in_text_becomes_json(
    behind: Behind, kind: str, status: int, retry: str | None
) -> None:
    behind.kind = kind
    answered, headers, body = behind.ask(_request(more=b"x-request-id: mine\r\n"))
    assert (answered, headers.get("retry-after")) == (status, retry)
    assert headers["content-type"] == "application/json" and headers["x-request-id"] == "mine"
    assert body["error"]["type"] == "server_error"


def test_without_a_replica_a_waiting_request_is_refused(behind: Behind) -> None:
    behind.kind, behind.availability = "hang", Availability.AWAY
    started = time.monotonic()
    status, headers, _ = behind.ask(_request())
    assert (status, headers["retry-after"]) == (503, "1") and time.monotonic() - started < 4
    for path in ("/healthz", "/readyz"):
        assert behind.ask(_request("GET", path))[0] == 503


def test_during_an_update_a_request_waits_and_probes_fail(behind: Behind) -> None:
    behind.kind, behind.availability = "slow", Availability.UPDATING
    assert behind.ask(_request())[0] == 200
    assert behind.ask(_request("GET", "/healthz"))[0] == 503


def _status(status: ApplicationStatus, running: int = 0) -> ServeStatus:
    """Return the status of an application that was deployed at the time 1000."""
    states = {ReplicaState.RUNNING: running} if running else {ReplicaState.STARTING: 1}
    trigger = DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
    ingress = DeploymentStatusOverview(DeploymentStatus.UPDATING, trigger, states, "")
    application = ApplicationStatusOverview(status, "", 1000.0, {INGRESS: ingress})
    return ServeStatus(applications={"awares": application})


@pytest.mark.parametrize(
    ("status", "running", "after_s", "expected"),
    [
        (ApplicationStatus.DEPLOYING, 0, 5.0, Availability.UPDATING),
        (ApplicationStatus.DEPLOYING, 0, UPDATE_S + 1, Availability.AWAY),
        (ApplicationStatus.DEPLOYING, 1, UPDATE_S + 1, Availability.READY),
        (ApplicationStatus.RUNNING, 0, UPDATE_S + 1, Availability.READY),
        (ApplicationStatus.UNHEALTHY, 0, 5.0, Availability.AWAY),
    ],
)
def test_an_update_is_over_after_its_time(
    status: ApplicationStatus, running: int, after_s: float, expected: Availability
) -> None:
    assert available(_status(status, running), 1000.0 + after_s) is expected


def test_an_endless_update_refuses_the_requests_that_wait(behind: Behind) -> None:
    behind.kind, behind.availability = "hang", Availability.UPDATING
    updating = _status(ApplicationStatus.DEPLOYING)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(behind.ask, _request())
        time.sleep(1.5)
        assert not waiting.done()
        behind.availability = available(updating, 1000.0 + UPDATE_S)
        status, headers, body = waiting.result()
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "unavailable")


def test_probes_do_not_queue_behind_requests(behind: Behind) -> None:
    behind.kind = "hang"
    with socket.create_connection(("127.0.0.1", behind.port)) as waiting:
        waiting.sendall(_request())
        time.sleep(0.2)
        assert behind.ask(_request("GET", "/healthz"))[::2] == (200, {"status": "ok"})
    time.sleep(0.3)
    assert behind.left == 1, "Serve must hear that the client has left"


def test_an_endpoint_that_stops_answers_what_it_accepted(behind: Behind) -> None:
    behind.kind = "slow"
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(behind.ask, _request())
        time.sleep(0.3)
        behind.draining = True
        time.sleep(1.0)
        for path in ("/", "/healthz"):
            status, headers, body = behind.ask(_request("GET", path))
            assert (status, headers["retry-after"]) == (503, "1")
            assert body["error"]["code"] == "stopping"
        assert behind.reports[-1] == 1
        assert accepted.result()[0] == 200
    time.sleep(0.8)
    assert behind.reports[-1] == 0
