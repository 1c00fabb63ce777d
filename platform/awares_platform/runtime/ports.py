"""Finds a free TCP port."""

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of this machine on which no process listens.

    `host` is the address on which the caller will listen; "" stands for all addresses. Another
    process can take the port before the caller does.
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
