"""A session: the store and Ray that a job needs, started here or connected to, and stopped again whatever happens.

    session ── store.endpoint = "local" ──> SeaweedFS under <run.directory>/.store     otherwise: the configured server
            └─ RAY_ADDRESS unset ─────────> Ray on this machine                        otherwise: that cluster

What a session started it also stops, by process id, after Ctrl-C, SIGTERM and errors as well; what it connected to it leaves alone.
"""

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from awares_platform.config import PlatformConfig
from awares_platform.errors import LaunchError
from awares_platform.runtime import source_tree
from awares_platform.runtime.processor import resolved
from awares_platform.store import ObjectStore, seaweed

log = logging.getLogger(__name__)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Ray runs its workers at a niceness of 15, so that any other process on the machine starves them.
_NICENESS = "RAY_worker_niceness"
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_CREDENTIALS_FILE = "AWS_SHARED_CREDENTIALS_FILE"
_SLOTS = 8  # Ray's CPUs are places, not cores: what runs at once sets its own thread counts
_OBJECT_STORE_BYTES = 2**30
_CHECK_BUDGET_S = 10.0
_STOP_S = 10.0


@contextmanager
def session(config: PlatformConfig) -> Iterator[PlatformConfig]:
    """Yield `config` with store.endpoint and engine.dtype resolved, Ray up and the bucket checked.

    Raises LaunchError if a part does not come up, and StoreError if the bucket is missing, denied or unavailable.
    """
    own_store = config.store.endpoint == "local"
    with ExitStack() as stack:
        stack.enter_context(_sigterm_unwinds())
        stack.enter_context(_environment(_variables(config)))
        config = stack.enter_context(_store(config))
        config = config.model_copy(update={"engine": resolved(config.engine)})
        stack.enter_context(_ray(config, own_store))
        yield config


@contextmanager
def store_session(config: PlatformConfig) -> Iterator[PlatformConfig]:
    """A session without Ray, for what only reads the store."""
    with _sigterm_unwinds(), _store(config) as resolved:
        yield resolved


def _variables(config: PlatformConfig) -> dict[str, str]:
    """What every process of a run has in its environment: no usage reports, and as many OpenMP threads as it was told."""
    return {**_QUIET, "OMP_NUM_THREADS": str(config.engine.threads)}


@contextmanager
def _store(config: PlatformConfig) -> Iterator[PlatformConfig]:
    """Resolve "local" into a running server, with its credentials in this process's environment, then check the bucket."""
    with ExitStack() as stack:
        if config.store.endpoint == "local":
            server = stack.enter_context(
                seaweed.serve(config.run.directory / ".store", config.store.bucket)
            )
            stack.enter_context(
                _environment(
                    dict(zip(_CREDENTIALS, (server.access_key, server.secret_key), strict=True))
                )
            )
            config = _with_store(config, endpoint=server.endpoint)
        ObjectStore(
            _with_store(
                config, retry_budget_s=min(_CHECK_BUDGET_S, config.store.retry_budget_s)
            ).store
        ).check()
        yield config


def _with_store(config: PlatformConfig, **changes: Any) -> PlatformConfig:
    return config.model_copy(update={"store": config.store.model_copy(update=changes)})


@contextmanager
def _ray(config: PlatformConfig, own_store: bool) -> Iterator[None]:
    address = os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield
    elif address:
        with _connected(config, address, own_store):
            yield
    else:
        with _started(config):
            yield


@contextmanager
def _started(config: PlatformConfig) -> Iterator[None]:
    """Ray on this machine, in a directory of its own that is removed unless the session ends in an error."""
    directory = Path(tempfile.mkdtemp(prefix="awares-ray-"))
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
        with _environment({_NICENESS: os.environ.get(_NICENESS, "0")}):
            _initialise(config, address="local", **options)
        yield
    except Exception:
        failed = True
        raise
    finally:
        _stop_ray(others)
        if failed:
            log.error("Ray's logs of the failed session: %s", directory / "session_latest" / "logs")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _stop_ray(others: set[psutil.Process]) -> None:
    """Shut Ray down, then end by process id whatever it leaves, such as an engine whose worker was killed."""
    started = set(psutil.Process().children(recursive=True)) - others
    ray.shutdown()
    _, alive = psutil.wait_procs(started, timeout=_STOP_S)
    for process in alive:
        log.warning("ending process %d, which outlived Ray", process.pid)
        process.kill()


@contextmanager
def _connected(config: PlatformConfig, address: str, own_store: bool) -> Iterator[None]:
    """A cluster that runs already, such as the one that a submitted job runs in.

    Credentials of a store that this session started travel as a file's path, not as values: Ray logs runtime environments.
    """
    if address.startswith(("http://", "https://")):
        raise LaunchError(
            f"RAY_ADDRESS={address} is a Jobs API: submit the job there with `ray job submit`, or unset RAY_ADDRESS"
        )
    variables = _variables(config)
    variables["PYTHONPATH"] = os.pathsep.join(
        ("platform", *source_tree.here().paths)
    )  # "platform": below an uploaded working_dir
    with ExitStack() as stack:
        if own_store:
            variables |= dict.fromkeys(
                _CREDENTIALS, ""
            )  # those of the cluster's own store would come before the file's
            variables[_CREDENTIALS_FILE] = stack.enter_context(
                _credentials_file(config.run.directory)
            )
        theirs = _submitted_variables()
        ours = {name: value for name, value in variables.items() if name not in theirs}
        _initialise(config, address=address, runtime_env={"env_vars": ours})
        stack.callback(ray.shutdown)
        yield


def _submitted_variables() -> Mapping[str, str]:
    """Environment variables that `ray job submit` was given: Ray refuses to set them again."""
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return (submitted.get("runtime_env") or {}).get("env_vars") or {}


@contextmanager
def _credentials_file(directory: Path) -> Iterator[str]:
    directory.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=".credentials-", dir=directory.resolve()
    )  # readable by this user only
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(
                "[default]\n"
                + "".join(f"{key.lower()} = {os.environ[key]}\n" for key in _CREDENTIALS)
            )
        yield name
    finally:
        Path(name).unlink()


def _initialise(config: PlatformConfig, **options: Any) -> None:
    try:
        ray.init(log_to_driver=config.run.worker_logs, logging_level=logging.WARNING, **options)
    except Exception as error:  # a bare Exception, too: Ray's own for a node that is not up in time
        if options["address"] == "local":
            raise LaunchError(
                f"Ray did not start on this machine ({error}); end what keeps it busy and run this again"
            ) from error
        raise LaunchError(
            f"no Ray at {options['address']} ({error}); check RAY_ADDRESS, or unset it to start Ray here"
        ) from error
    _check_sources()


def _check_sources() -> None:
    """Every node must run the driver's sources."""
    driver = source_tree.here()
    task = ray.remote(num_cpus=0)(source_tree.here)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    checks = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in nodes
    ]
    for node, worker in zip(nodes, ray.get(checks, timeout=120), strict=True):
        source_tree.require_same(driver, worker, node)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and the ones it starts; put the old ones back."""
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
def _sigterm_unwinds() -> Iterator[None]:
    """Make SIGTERM leave through the same cleanup as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
