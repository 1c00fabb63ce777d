"""A session starts an object store and Ray on this machine, or connects to running servers.

    session --+-- store.endpoint = "local": start or join the SeaweedFS of <run.directory>/.store
              |   else: use the configured server
              +-- RAY_ADDRESS unset: start Ray on this machine
                  else: connect to that cluster

A session stops the Ray that it has started, also after Ctrl-C, SIGTERM and errors.
"""

import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import worker as ray_worker
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from awares.errors import ConfigError, DataError, PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.config.run import RunConfig
from awares_platform.config.store import StoreConfig
from awares_platform.runtime import ray_directory, source_tree
from awares_platform.runtime.driver import first_line
from awares_platform.runtime.own_sessions import own_sessions
from awares_platform.runtime.processor import resolved
from awares_platform.store import ObjectStore, keys, seaweed
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Some libraries read UTF-8 files in the encoding of the locale, which may be ASCII.
    "PYTHONUTF8": "1",
    "PYTHONIOENCODING": "utf-8",
}
PROXY_MIDDLEWARES = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "awares_platform.serve.proxy:middlewares"
}
"""The environment variable that tells Ray Serve's proxies which HTTP middlewares to use."""
# By default, Ray runs its workers at niceness 15. Any other busy process then starves the workers.
_NICENESS = "RAY_worker_niceness"
_SLOTS = 8
"""The smallest number of Ray's logical CPUs. They are scheduling slots and not cores."""
_OBJECT_STORE_BYTES = 2**30
_CHECK_BUDGET_S = 10.0
_RETRY_S = 0.5
_ANSWER_S = 120.0
_STOP_S = 10.0
TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that SIGTERM has ended."""
_MISTAKES = (ConfigError, DataError, PolicyError)
"""Errors of the user's input. Ray's logs tell nothing about such errors."""


@contextmanager
def session(config: PlatformConfig, *, check_store: bool = True) -> Iterator[PlatformConfig]:
    """Connect to the store and to Ray. Yield `config` with the store's address and the data type.

    Raises LaunchError if a server does not start, and StoreError if `check_store` is true and the
    bucket cannot be used.
    """
    variables = _variables(config.engine.threads)
    # If no directory is suitable for Ray, raise LaunchError here, before the store starts.
    parent = ray_directory.parent() if _starts_ray() else None
    with ExitStack() as stack:
        handle_sigterm = stack.enter_context(_sigterm_unwinds())
        stack.enter_context(_environment(variables))
        store = stack.enter_context(_store(config.store, config.run.directory, check=check_store))
        config = config.model_copy(update={"store": store, "engine": resolved(config.engine)})
        stack.enter_context(_ray(config.run, variables, parent))
        # Replace Ray's SIGTERM handler, which aborts with a C++ stack trace.
        handle_sigterm()
        # When the session stops, `_ignore_signals` runs first.
        stack.callback(_ignore_signals)
        yield config


@contextmanager
def store_session(config: PlatformConfig) -> Iterator[PlatformConfig]:
    """Yield `config` in a session without Ray, for commands that use only the store."""
    with _sigterm_unwinds(), _store(config.store, config.run.directory) as store:
        yield config.model_copy(update={"store": store})


def _variables(threads: int) -> dict[str, str]:
    """Return environment variables that limit threads, and configure libraries and Ray Serve."""
    return {**_QUIET, **PROXY_MIDDLEWARES, "OMP_NUM_THREADS": str(threads)}


@contextmanager
def _store(config: StoreConfig, directory: Path, *, check: bool = True) -> Iterator[StoreConfig]:
    """Start or join a private server if the endpoint is "local", and yield the store's settings.

    All sessions on `directory` share the private server in `directory`/.store.
    """
    with ExitStack() as stack:
        if config.endpoint == "local":
            place = directory / ".store"
            server = stack.enter_context(seaweed.serve(place, config.bucket))
            stack.enter_context(_environment(keys.variable(place)))
            config = config.model_copy(update={"endpoint": server.endpoint})
        if check:
            ObjectStore(config).hurried(_CHECK_BUDGET_S).check()
        yield config


def _starts_ray() -> bool:
    return not (ray.is_initialized() or os.environ.get("RAY_ADDRESS"))


@contextmanager
def _ray(config: RunConfig, variables: Mapping[str, str], parent: Path | None) -> Iterator[None]:
    if parent:
        with _started(config.worker_logs, parent):
            yield
    elif ray.is_initialized():
        yield
    else:
        with _connected(config.worker_logs, os.environ["RAY_ADDRESS"], variables):
            yield


@contextmanager
def _started(worker_logs: bool, parent: Path) -> Iterator[None]:
    """Start Ray on this machine.

    After an error, keep Ray's directory with its logs, unless the user's input caused the error.
    """
    directory = ray_directory.create(parent)
    variables = {
        _NICENESS: os.environ.get(_NICENESS, "0"),
        **ray_directory.variables(directory),
        **_direct(ray.util.get_node_ip_address()),
    }
    others = set(psutil.Process().children(recursive=True))
    slots = max(_SLOTS, os.cpu_count() or 1)
    options = {
        "num_cpus": slots,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": str(directory),
    }
    failed = False
    try:
        with _environment(variables):
            with ray_directory.plain_executable(directory), own_sessions():
                _initialise(worker_logs, address="local", **options)
            yield
    except _MISTAKES:
        raise
    except Exception:
        failed = True
        raise
    finally:
        _stop_ray(others)
        if failed:
            log.error("Ray's logs of the failed session: %s", directory / "session_latest" / "logs")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _direct(node: str) -> dict[str, str]:
    """Return environment variables that make calls to this machine bypass all proxies."""
    ours = f"localhost,127.0.0.1,{node}"
    return {
        name: f"{os.environ[name]},{ours}" if os.environ.get(name) else ours
        for name in ("no_proxy", "NO_PROXY")
    }


def _stop_ray(others: set[psutil.Process]) -> None:
    """Shut Ray down, then kill the child processes that Ray leaves running.

    If the Ray worker of an engine was killed, the engine's own processes outlive Ray.
    """
    started = set(psutil.Process().children(recursive=True)) - others
    runs = ray.is_initialized()
    ray.shutdown()
    # After an interrupted start, Ray's processes do not end by themselves, so do not wait.
    _, alive = psutil.wait_procs(started, timeout=_STOP_S if runs else 0)
    if alive and runs:
        numbers = ", ".join(str(process.pid) for process in alive)
        log.warning("ending processes that outlived Ray: %s", numbers)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def _connected(worker_logs: bool, address: str, common: Mapping[str, str]) -> Iterator[None]:
    """Connect to a running Ray cluster.

    Workers get only the path of the file with the private store's credentials, because Ray logs
    their environment variables.
    """
    if address.startswith(("http://", "https://")):
        raise LaunchError(
            f"RAY_ADDRESS={address} is a Jobs API: submit the job there with `ray job submit`, "
            "or unset RAY_ADDRESS"
        )
    _reach(address)
    # "platform" is a relative path in the uploaded working_dir.
    paths = ("platform", *source_tree.here().paths)
    variables = {**common, "PYTHONPATH": os.pathsep.join(paths)}
    if path := os.environ.get(keys.VARIABLE):
        variables[keys.VARIABLE] = path
    theirs = _submitted_variables()
    ours = {name: value for name, value in variables.items() if name not in theirs}
    try:
        _initialise(worker_logs, address=address, runtime_env={"env_vars": ours})
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise LaunchError if nothing listens at `address`. Ray itself would try for minutes.

    Do not check an address without a port, such as "auto".
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    deadline = time.monotonic() + _CHECK_BUDGET_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CHECK_BUDGET_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise _no_ray(address, error) from error
        time.sleep(_RETRY_S)


def _no_ray(address: str, error: Exception) -> LaunchError:
    return LaunchError(
        f"no Ray at {address} ({error}); check RAY_ADDRESS, or unset it to start Ray here"
    )


def _submitted_variables() -> Mapping[str, str]:
    """Return the environment variables that `ray job submit` sets.

    Ray rejects a second value for any of them.
    """
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return (submitted.get("runtime_env") or {}).get("env_vars") or {}


def _initialise(worker_logs: bool, **options: Any) -> None:
    # If `worker_logs` is false, this assignment also hides Ray's lines about dead processes. The
    # jobs report such processes themselves.
    ray_worker._worker_logs_enabled = worker_logs
    try:
        ray.init(log_to_driver=worker_logs, logging_level=logging.WARNING, **options)
    except Exception as error:  # Ray raises a plain Exception if a node starts too slowly.
        if options["address"] == "local":
            raise LaunchError(
                f"Ray did not start on this machine ({error}); stop other work on it and try again"
            ) from error
        raise _no_ray(options["address"], error) from error
    _check_sources()


def _check_sources(nodes: Sequence[str] = ()) -> None:
    """Raise LaunchError unless every node has the same source files as the driver.

    `nodes` are ids of nodes; by default, they are all living nodes. A lost node is skipped.
    """
    driver = source_tree.here()
    task = ray.remote(num_cpus=0)(source_tree.here)
    nodes = nodes or [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    checks = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in nodes
    ]
    ray.wait(checks, num_returns=len(checks), timeout=_ANSWER_S)
    for node, check in zip(nodes, checks, strict=True):
        try:
            source_tree.require_same(driver, ray.get(check, timeout=0), node)
        except RayTaskError:
            raise
        except RayError as error:
            log.warning("the sources of node %s are not checked: %s", node, first_line(error))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs, then restore the old values."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _sigterm_unwinds() -> Iterator[Callable[[], object]]:
    """Turn SIGTERM into SystemExit, so that SIGTERM causes the same cleanup as Ctrl-C.

    Yields a function that installs the signal handler again. Outside the main thread, both
    functions do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received = threading.Event()

    def unwind(*_: Any) -> None:
        received.set()
        sys.exit(TERMINATED)

    def install() -> Any:
        return signal.signal(signal.SIGTERM, unwind)

    on_ctrl_c, before = signal.getsignal(signal.SIGINT), install()
    try:
        yield install
    except SystemExit as error:
        # A call into Ray may replace the exit status that the handler chose.
        raise SystemExit(TERMINATED if received.is_set() else error.code) from error
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, on_ctrl_c or signal.default_int_handler)


def _ignore_signals() -> None:
    """Ignore SIGTERM and Ctrl-C from now on.

    A second signal could interrupt the cleanup, and leave processes and files of the session
    behind. Ctrl-\\ still kills the process at once.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
