"""Tests the endpoint's check of its port, its messages during a start, and its import path.

A RayService builds the endpoint from the import path `awares_platform.serve.app:build`.
"""

import socket
import threading
from types import SimpleNamespace

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from awares_platform.config.serve import ServeConfig
from awares_platform.serve import job
from awares_platform.serve.app import build
from awares_platform.serve.job import announcement, base_url, check_port, last_line
from awares_platform.store.errors import LaunchError


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = rf"port={port} on 127\.0\.0\.1 cannot be used: another process listens there"
        with pytest.raises(LaunchError, match=rf"serve\.{said}"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_named():
    with pytest.raises(LaunchError, match=r"on 203\.0\.113\.1 cannot be used"):
        check_port("203.0.113.1", 18080)


def test_import_path_takes_a_setups_sections_as_args():
    args = {"run": {"name": "prod"}, "serve": {"max_ongoing_requests": 2}}
    path = "awares_platform.serve.app:build"
    ServeDeploySchema.model_validate(
        {"applications": [{"name": "awares", "import_path": path, "args": args}]}
    )

    application = call_user_app_builder_with_args_if_necessary(build, args)
    assert application._bound_deployment.max_ongoing_requests == 2
    assert application._bound_deployment.init_args[0].run.name == "prod"


def test_import_path_refuses_unknown_args():
    with pytest.raises(ValueError, match="max_ongoing"):
        call_user_app_builder_with_args_if_necessary(build, {"serve": {"max_ongoing": 2}})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("10.1.2.3", "http://10.1.2.3:80"),
    ],
)
def test_base_url_is_one_that_a_client_can_use(host, url):
    assert base_url(ServeConfig(host=host, port=80)) == url


def test_last_line_is_what_happened():
    assert last_line("Traceback:\n  File x\nPolicyError: no policy\n\n") == "PolicyError: no policy"
    assert last_line("") == ""


def test_the_announcement_says_how_to_ask_and_how_to_stop():
    lines = announcement(ServeConfig(policy="sft"), "mini", "http://127.0.0.1:8000").splitlines()
    assert lines == [
        "serving sft of run mini at http://127.0.0.1:8000/v1/chat/completions",
        "open it:  http://127.0.0.1:8000/",
        "ask it:   awares ask IMAGE 'QUESTION'",
        "stop it:  Ctrl-C",
    ]
    other = announcement(ServeConfig(token_env="MY_TOKEN"), "mini", "http://127.0.0.1:81")
    assert "'QUESTION' --endpoint http://127.0.0.1:81 --token-env MY_TOKEN\n" in other


class Start:
    """A simulated start of an endpoint, with a clock that only `wait` moves.

    A replica gets its node at the time `placed_s`. Its engine is ready `starts_s` seconds later.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, starts_s: float, placed_s: float = 0.0):
        self.now, self.placed_s, self.ready_s = 0.0, placed_s, placed_s + starts_s
        self.said: list[tuple[float, str]] = []
        monkeypatch.setattr(job.serve, "status", self.status)
        monkeypatch.setattr(job.time, "monotonic", lambda: self.now)

    def wait(self, timeout_s: float) -> None:
        start = self

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                start.now += 4.0
                return False

        job._wait_until_running(timeout_s, Stop(), lambda text: self.said.append((self.now, text)))

    def status(self) -> SimpleNamespace:
        running = self.now > self.ready_s
        state = ApplicationStatus.RUNNING if running else ApplicationStatus.DEPLOYING
        message = "it takes more than 30s to be scheduled" if self.now < self.placed_s else ""
        deployments = {"awares": SimpleNamespace(message=message)}
        application = SimpleNamespace(status=state, deployments=deployments, message="")
        return SimpleNamespace(applications={"awares": application})


def test_a_long_start_is_said_again(monkeypatch: pytest.MonkeyPatch):
    start = Start(monkeypatch, starts_s=40.0)
    start.wait(300.0)
    assert start.said == [(16.0, "the engine still starts"), (32.0, "the engine still starts")]


def test_an_endpoint_waits_for_its_node_and_not_for_its_engine(monkeypatch: pytest.MonkeyPatch):
    start = Start(monkeypatch, starts_s=40.0, placed_s=1000.0)
    start.wait(60.0)
    waiting = "waiting for nodes: it takes more than 30s to be scheduled"
    assert start.said[0] == (16.0, waiting) and len(start.said) > 60
    slow = Start(monkeypatch, starts_s=400.0, placed_s=1000.0)
    with pytest.raises(LaunchError, match=r"serve\.start_timeout_s=60 s"):
        slow.wait(60.0)
    assert 1050 < slow.now < 1080
