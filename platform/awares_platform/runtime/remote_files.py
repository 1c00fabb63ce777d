"""Fetches image files from URLs, with a guard against server-side request forgery.

All addresses of an allowlisted host must be public. The module connects to an address that it has
checked, because a second lookup could return another address (DNS rebinding).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx

from awares.errors import DataError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]


async def resolve(host: str, port: int) -> list[Address]:
    """Return the IP addresses of a host name."""
    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(row[4][0]) for row in rows]


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet.

    For an IPv4-mapped IPv6 address, the function checks the IPv4 address.
    """
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_global and not mapped.is_multicast


class FetchRefused(DataError):
    """Raised if a URL is refused or cannot be fetched.

    `code` is a fixed name of the reason, such as "image_timeout".
    """

    def __init__(self, message: str, code: str = "image_refused") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """Fetches files from allowlisted hosts, with limits on the bytes and the time of a fetch.

    Example:
        RemoteFiles(hosts=("images.example.com",), max_bytes=2**24, timeout_s=5.0)
    """

    hosts: tuple[str, ...]
    """The allowlisted hosts. Without hosts, every URL is refused."""
    max_bytes: int
    """The largest size of a file."""
    timeout_s: float
    """The longest time of a fetch."""
    resolve: Resolve = resolve
    """Looks up the addresses of a host."""
    permitted: Callable[[Address], bool] = is_public
    """Returns whether a fetch may connect to an address."""

    async def fetch(self, url: str) -> bytes:
        """Fetch the content of `url`.

        Raises FetchRefused if the URL is refused or the fetch fails. The error states the reason.
        """
        parts = self._check(url)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._get(parts, await self._address(parts))
        except TimeoutError:
            raise FetchRefused(
                f"fetching the image took over {self.timeout_s:g} s", "image_timeout"
            ) from None
        except (OSError, httpx.HTTPError) as error:
            raise FetchRefused(
                f"fetching the image failed: {type(error).__name__}", "image_unreachable"
            ) from None

    def _check(self, url: str) -> SplitResult:
        if not self.hosts:
            raise FetchRefused("remote images are not fetched here; send the image as a data: URL")
        try:
            parts = urlsplit(url)
            valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise FetchRefused("image_url.url: expected a data:, https: or http: URL")
        if parts.username is not None or parts.password is not None:
            raise FetchRefused("image_url.url must not carry credentials")
        if parts.hostname not in self.hosts:
            raise FetchRefused(
                f"images are not fetched from {parts.hostname}; allowed: {', '.join(self.hosts)}"
            )
        return parts

    async def _address(self, parts: SplitResult) -> Address:
        assert parts.hostname is not None
        addresses = await self.resolve(parts.hostname, _port(parts))
        if not addresses or not all(self.permitted(address) for address in addresses):
            raise FetchRefused(f"{parts.hostname} does not resolve to public addresses only")
        return addresses[0]

    async def _get(self, parts: SplitResult, address: Address) -> bytes:
        host = f"[{address}]" if address.version == 6 else str(address)
        url = parts._replace(netloc=f"{host}:{_port(parts)}", fragment="").geturl()
        headers = {"host": parts.netloc, "accept": "image/*", "accept-encoding": "identity"}
        async with (
            httpx.AsyncClient(
                follow_redirects=False, trust_env=False, timeout=self.timeout_s
            ) as client,
            client.stream(
                "GET", url, headers=headers, extensions={"sni_hostname": parts.hostname}
            ) as response,
        ):
            if response.status_code != 200:
                raise FetchRefused(
                    f"{parts.hostname} answered {response.status_code}; "
                    "expected 200 and no redirect",
                    "image_unreachable",
                )
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > self.max_bytes:
                    raise FetchRefused(
                        f"the image is over {self.max_bytes} bytes", "image_too_large"
                    )
            return bytes(data)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)
