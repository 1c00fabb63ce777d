"""Hands out loopback addresses and free ports. Every pod and every Service has its own address.

A port is free only if it is free on all addresses, because Ray binds some ports on all of them.
"""

import random
import socket
from collections.abc import Iterator

_SINGLE = range(12_000, 19_900)
_TWINS = range(20_000, 22_700)
TWIN_OFFSET = 10_000
_RANGES = range(23_000, 29_900, 100)


class Addresses:
    """Hands out each address and each port at most once.

    The addresses lie in a random /16 network of 127/8. Several simulators can thus share a machine.
    """

    def __init__(self) -> None:
        source = random.SystemRandom()
        self._network = f"127.{source.randrange(64, 250)}"
        self._hosts = iter(range(256 * source.randrange(1, 200) + 2, 2**16))
        self._ports = _free(source.sample(_SINGLE, len(_SINGLE)))
        self._twins = (
            port
            for port in _free(source.sample(_TWINS, len(_TWINS)))
            if is_free("0.0.0.0", port + TWIN_OFFSET)
        )
        self._starts = _free(source.sample(_RANGES, len(_RANGES)))

    def address(self) -> str:
        """Return a new loopback address."""
        host = next(self._hosts)
        return f"{self._network}.{host // 256}.{host % 256}"

    def port(self) -> int:
        """Return a port that is free on all addresses."""
        return next(self._ports)

    def twin(self) -> int:
        """Return a free port p such that port p + 10000 is free too. SeaweedFS uses both ports."""
        return next(self._twins)

    def range(self) -> tuple[int, int]:
        """Return the first and the last port of a new range of 100 ports.

        Only the first port is known to be free.
        """
        first = next(self._starts)
        return first, first + 99


def _free(candidates: list[int]) -> Iterator[int]:
    return (port for port in candidates if is_free("0.0.0.0", port))


def is_free(address: str, port: int) -> bool:
    """Return whether a server can listen on this address and port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
