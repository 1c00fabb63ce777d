"""Runs the readiness probes of containers: an HTTP request, a TCP connection or a command."""

import http.client
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Resolve = Callable[[Any], int]
_LIMIT_S = 5.0


def passes(
    probe: Mapping[str, Any],
    address: str,
    port: Resolve,
    command: Callable[[Sequence[str]], tuple[list[str], dict[str, str], Path]],
) -> bool:
    """Return whether the probe succeeds now. A gRPC probe always succeeds.

    - `port` maps the name or declared number of a port to its actual number.
    - `command` maps the probe's command to the arguments, environment and directory of a process.
    """
    if "httpGet" in probe:
        return _http(address, port(probe["httpGet"]["port"]), probe["httpGet"].get("path", "/"))
    if "tcpSocket" in probe:
        return _tcp(address, port(probe["tcpSocket"]["port"]))
    if "exec" in probe:
        arguments, environment, directory = command(probe["exec"]["command"])
        try:
            ended = subprocess.run(
                arguments, env=environment, cwd=directory, capture_output=True, timeout=_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return False
        return ended.returncode == 0
    return True


def _tcp(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), _LIMIT_S):
            return True
    except OSError:
        return False


def _http(address: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=_LIMIT_S)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
