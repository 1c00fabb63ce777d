"""Forwards TCP connections from Services to pods, as kube-proxy does, in one asyncio thread."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

Target = tuple[str, int]
_CONNECT_S = 5.0
_PIECE = 65536


class Forwarder:
    """Listens on the addresses of Services, and forwards each connection to a target.

    If there is no target, the forwarder closes the connection.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: dict[Target, asyncio.Server] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def listen(self, address: str, port: int, choose: Callable[[], Target | None]) -> None:
        """Start to listen on one address and port.

        `choose` is called for each new connection, and returns its target or None. Raises OSError
        if the port is in use.
        """

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _forward(reader, writer, choose())

        future = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(connected, address, port), self._loop
        )
        self._servers[address, port] = future.result(10)

    def close(self, address: str, port: int) -> None:
        """Stop listening on one address and port. Existing connections continue."""
        server = self._servers.pop((address, port))
        self._loop.call_soon_threadsafe(server.close)

    def stop(self) -> None:
        """Stop the thread and close every connection."""
        for address, port in list(self._servers):
            self.close(address, port)
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target | None
) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
        if target is not None:
            their_reader, their_writer = await asyncio.wait_for(
                asyncio.open_connection(*target), _CONNECT_S
            )
            await asyncio.gather(_copy(reader, their_writer), _copy(their_reader, writer))
    writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()
