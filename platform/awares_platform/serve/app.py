"""Start, watch and stop the endpoint: for `awares serve`, for jobs/serve.py, and as a serveConfigV2's import_path.

awares serve ── run ── serving ── check token, autoscaling, port ── Serve proxies ── build ── replicas ── ready ... SIGTERM ── drain
RayService   ── import_path: awares_platform.serve.app:build, args: the setup's sections ─┘
"""

import errno
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.errors import LaunchError
from awares_platform.runtime.run import Run
from awares_platform.serve.deployment import build_application, read_token
from awares_platform.store import ObjectStore

APP = "awares"
POLL_S = 0.5


def build(config: PlatformConfig) -> Application:
    """The application for a serveConfigV2 whose `args` are a setup's sections; Serve validates them into `config`.

    Example:
        {"name": "awares", "import_path": "awares_platform.serve.app:build", "args": {"run": {"name": "mini"}, "serve": {"port": 80}}}
    """
    return build_application(config)


def run(config: PlatformConfig) -> None:
    """Serve until SIGTERM or Ctrl-C, then let the requests in flight finish. Ray runs and the store is reachable already."""
    started, stop = time.monotonic(), threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with Run(config, "serve") as record, serving(config, stop) as url:
            record.metrics(0, {"time/start": time.monotonic() - started})
            if not stop.is_set():
                print(
                    f"serving {config.serve.policy} of run {config.run.name} at {url}/v1/chat/completions; Ctrl-C ends it",
                    flush=True,
                )
            stop.wait()
            print("stopping: no new requests, those in flight finish", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def serving(config: PlatformConfig, stop: threading.Event | None = None) -> Iterator[str]:
    """The endpoint's base URL, once it answers. Every check that needs no engine comes before one starts.

    Raises ConfigError, PolicyError, or LaunchError if the port is taken, or if the replica does not come up.
    """
    application = build_application(config)
    read_token(config.serve)
    _check_policy(config)
    _check_serve_is_ours()
    check_port(config.serve.host, config.serve.port)
    serve.start(http_options=HTTPOptions(host=config.serve.host, port=config.serve.port))
    try:
        serve.run_many(
            [serve.RunTarget(application, name=APP, route_prefix="/")],
            wait_for_applications_running=False,
        )
        _wait_until_running(config, stop or threading.Event())
        yield base_url(config)
    finally:
        _drain()


def _drain() -> None:
    """Let the replicas finish what they have while the proxies still carry their answers: a shutdown alone kills the proxies first."""
    try:
        if APP in serve.status().applications:
            serve.delete(APP)
    finally:
        serve.shutdown()


def base_url(config: PlatformConfig) -> str:
    """Where a client on this machine reaches the endpoint."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.serve.host, config.serve.host)
    return f"http://{host}:{config.serve.port}"


def check_port(host: str, port: int) -> None:
    """Raise LaunchError if `port` cannot be listened on. Ray Serve would say so only after minutes, in a proxy's log."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (
                "another process listens there"
                if error.errno == errno.EADDRINUSE
                else error.strerror
            )
            raise LaunchError(
                f"serve.port={port} on {host} cannot be used: {reason}; stop it or choose another serve.port"
            ) from error


def _check_policy(config: PlatformConfig) -> None:
    from awares_platform.training.export import read_meta

    name = config.serve.policy
    if (
        name != "base"
        and read_meta(ObjectStore.from_config(config.store), config.run.name, name) is None
    ):
        job = "grpo" if name == "awares" else name
        raise PolicyError(
            f"run {config.run.name!r} has no complete policy {name!r} to serve: finish `awares {job}` first"
        )


def _check_serve_is_ours() -> None:
    if serve.status().proxies:
        raise LaunchError(
            "Ray Serve runs on this cluster already: deploy there with import_path awares_platform.serve.app:build, or stop it first"
        )


def _wait_until_running(config: PlatformConfig, stop: threading.Event) -> None:
    """Raise LaunchError with the replica's own words when it fails, or when it is not up in time."""
    deadline = time.monotonic() + config.serve.start_timeout_s
    while not stop.is_set():
        status = serve.status().applications[APP]
        if status.status is ApplicationStatus.RUNNING:
            return
        said = last_line(
            "\n".join(
                [
                    status.message,
                    *(deployment.message for deployment in status.deployments.values()),
                ]
            )
        )
        if status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise LaunchError(f"the endpoint did not start: {said}")
        if time.monotonic() > deadline:
            limit = f"serve.start_timeout_s={config.serve.start_timeout_s:g} s"
            raise LaunchError(
                f"the endpoint did not start within {limit}: {said or 'no replica was placed'}"
            )
        stop.wait(POLL_S)


def last_line(text: str) -> str:
    """The line of a worker's traceback that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
