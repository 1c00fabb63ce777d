"""Tests which URLs are recognised as addresses of this machine."""

import pytest

from awares_platform.config.loopback import is_loopback


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://127.8.9.10",
        "http://LOCALHOST:1",
        "https://store.localhost",
        "http://[::1]:8000",
        "http://0.0.0.0:8000",
        "http://user:password@127.0.0.1:8000",
    ],
)
def test_this_machine(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "local",
        "http://10.0.0.1:8000",
        "https://s3.amazonaws.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "http://[::1",
    ],
)
def test_another_machine(url: str | None) -> None:
    assert not is_loopback(url)
