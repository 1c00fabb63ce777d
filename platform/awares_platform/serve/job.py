"""Starts, watches and stops the endpoint.

    awares serve --> run --> serving --checks--> Serve proxies --> build --> replicas --> ready
                                                                     ^                      |
    RayService --serveConfigV2: import_path, args--------------------+        SIGTERM --> drain

`serving` checks the token, the autoscaling keys, the policy and the port. A RayService does not
call `serving`.
"""

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.serve import ServeConfig
from awares_platform.runtime.job_lease import hold, serve_lease
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.serve import draining
from awares_platform.serve.deployment import build_application, keyring
from awares_platform.serve.foreign import ServeLog
from awares_platform.store import ObjectStore
from awares_platform.store.errors import LaunchError, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

APP = "awares"
POLL_S = 0.5
DRAIN_POLL_S = 0.1
NOTICE_S = 1.5
"""Seconds after which every proxy has noticed that the endpoint is stopping."""
BEAT_S = 15.0
"""Seconds between two progress messages while the endpoint starts."""
_UNPLACED = "to be scheduled"
"""Words in Ray Serve's message about a replica that has no node yet."""
ASK_TOKEN = "AWARES_TOKEN"
"""The environment variable from which `awares ask` takes the token by default."""


def run(config: PlatformConfig) -> None:
    """Run the endpoint until SIGTERM or Ctrl-C. Then wait until the requests in flight finish.

    Ray must be initialised, and the store must be reachable.

    Raises JobFenced if this process loses its lease on the run.
    """
    started, stop = time.monotonic(), threading.Event()
    store = ObjectStore.from_config(config.store)
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with (
            in_use(store, config.run.name),
            Run(config, "serve") as record,
            ExitStack() as endpoint,
        ):
            with Progress("serve") as progress:
                url = endpoint.enter_context(serving(config, stop, progress.say))
            record.metrics(0, {"time/start": time.monotonic() - started})
            if not stop.is_set():
                print(announcement(config.serve, config.run.name, url), flush=True)
            stop.wait()
            print("stopping: no new requests, those in flight finish", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def in_use(store: ObjectStore, run: str) -> Iterator[None]:
    """Hold a lease on the run, so that no quickstart deletes the run while it is served.

    If the store refuses the lease, for example to credentials that allow only reading, the endpoint
    runs without a lease.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(store, serve_lease(run), "serve"))
        except StoreUnavailable:
            raise
        except StoreError as error:
            log.warning("a quickstart might delete run %s, because it has no lease: %s", run, error)
        yield


def announcement(settings: ServeConfig, run: str, url: str) -> str:
    """Return the message that tells the user how to open, ask and stop the ready endpoint."""
    options = "" if url == "http://127.0.0.1:8000" else f" --endpoint {url}"
    if settings.token_env not in (None, ASK_TOKEN):
        options += f" --token-env {settings.token_env}"
    return (
        f"serving {settings.policy} of run {run} at {url}/v1/chat/completions\n"
        f"open it:  {url}/\n"
        f"ask it:   awares ask IMAGE 'QUESTION'{options}\n"
        "stop it:  Ctrl-C"
    )


@contextmanager
def serving(
    config: PlatformConfig,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[str]:
    """Start the endpoint, and yield its base URL when it is ready. Stop the endpoint at the end.

    `say` gets a line at each step of the start. If `stop` is set, the start ends early.

    Raises ConfigError for a wrong setting.
    Raises PolicyError if the run has no such policy, or one trained with other `method` settings.
    Raises LaunchError if Ray Serve already runs, the port is taken, or the replica does not start.
    """
    application = build_application(config)
    keyring(config.serve)
    store = ObjectStore.from_config(config.store)
    _check_policy(store, config.run.name, config.serve.policy, config.method)
    if config.serve.follow:
        from awares_platform.training.inputs import check_newest

        check_newest(store, config.run.name, config.method)
    _check_serve_is_ours()
    check_port(config.serve.host, config.serve.port)
    ServeLog(config.run.directory / config.run.name / "serve.log").take_over()
    say("starting Ray Serve")
    draining.clear()
    serve.start(http_options=HTTPOptions(host=config.serve.host, port=config.serve.port))
    try:
        serve.run_many(
            [serve.RunTarget(application, name=APP, route_prefix="/")],
            wait_for_applications_running=False,
        )
        say(f"starting the engine with policy {config.serve.policy} of run {config.run.name}")
        _wait_until_running(config.serve.start_timeout_s, stop or threading.Event(), say)
        yield base_url(config.serve)
        _let_finish(config.serve.shutdown_timeout_s)
    finally:
        _drain()


def _let_finish(timeout_s: float) -> None:
    """Tell the proxies to refuse new requests. Wait until they have answered the earlier requests.

    Wait at most `timeout_s` seconds.
    """
    draining.begin()
    deadline = time.monotonic() + timeout_s
    time.sleep(NOTICE_S)
    while any(draining.ongoing().values()) and time.monotonic() < deadline:
        time.sleep(DRAIN_POLL_S)


def _drain() -> None:
    """Delete the application, then shut down Serve.

    While Serve deletes the application, the proxies still deliver the last answers of the replicas.
    A shutdown alone would kill the proxies before the replicas have finished.
    """
    try:
        if APP in serve.status().applications:
            serve.delete(APP)
    finally:
        serve.shutdown()


def base_url(settings: ServeConfig) -> str:
    """Return the base URL at which a client on this machine reaches the endpoint."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{host}:{settings.port}"


def check_port(host: str, port: int) -> None:
    """Raise LaunchError if this machine cannot listen on `port`.

    Without this check, Ray Serve would report the failure only after minutes, in a proxy's log.
    """
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
                f"serve.port={port} on {host} cannot be used: {reason}; "
                "stop it or choose another serve.port"
            ) from error


def _check_policy(store: ObjectStore, run: str, name: str, method: MethodConfig) -> None:
    from awares_platform.training.export import policy_key, read_meta
    from awares_platform.training.inputs import check_stored

    if name == "base":
        return
    if read_meta(store, run, name) is None:
        job = "grpo" if name == "awares" else name
        raise PolicyError(
            f"run {run!r} has no complete policy {name!r} to serve: finish `awares {job}` first"
        )
    check_stored(store, policy_key(run, name), method)


def _check_serve_is_ours() -> None:
    if serve.status().proxies:
        raise LaunchError(
            "Ray Serve runs on this cluster already: deploy there with import_path "
            "awares_platform.serve.app:build, or stop it first"
        )


def _wait_until_running(
    timeout_s: float, stop: threading.Event, say: Callable[[str], None]
) -> None:
    """Wait until the application runs or `stop` is set. Call `say` every `BEAT_S` seconds.

    Raises LaunchError if the application fails or needs over `timeout_s` seconds. The time until a
    node is available does not count.
    """
    deadline = time.monotonic() + timeout_s
    beat = time.monotonic() + BEAT_S
    while not stop.is_set():
        status = serve.status().applications[APP]
        if status.status is ApplicationStatus.RUNNING:
            return
        messages = (deployment.message for deployment in status.deployments.values())
        said = last_line("\n".join([status.message, *messages]))
        if status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise LaunchError(f"the endpoint did not start: {said}")
        unplaced = _UNPLACED in said
        if unplaced:
            deadline = time.monotonic() + timeout_s
        if time.monotonic() > deadline:
            limit = f"serve.start_timeout_s={timeout_s:g} s"
            raise LaunchError(
                f"the endpoint did not start within {limit}: {said or 'no replica was placed'}"
            )
        if time.monotonic() > beat:
            beat += BEAT_S
            say(f"waiting for nodes: {said}" if unplaced else "the engine still starts")
        stop.wait(POLL_S)


def last_line(text: str) -> str:
    """Return the last non-blank line, or "". In a traceback, this line names the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
