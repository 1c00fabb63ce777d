"""Tests that no header of a client breaks or steers Ray Serve's proxy."""

import asyncio
import importlib

import pytest
from ray.serve._private import constants, http_util

from awares_platform.runtime.session import PROXY_MIDDLEWARES
from awares_platform.serve import proxy


def passed(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers that reach the proxy."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])

    scope = {"type": "http", "headers": list(headers)}
    asyncio.run(proxy.CleanHeaders(app)(scope, None, None))
    return seen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-request-id", b"caf\xe9"),
        (b"x-request-id", b"a" * 200),
        (b"x-request-id", b"a\x07b"),
        (b"serve_multiplexed_model_id", b"\xe9"),
        (b"serve-multiplexed-model-id", b"m"),
        (b"Serve_Multiplexed-Model-Id", b"m"),
        (b"x-session-id", b"\xe9"),
        (b"x-request-timeout-seconds", b"1"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"x-serve-router-endpoint", b"a"),
        (b"x-caf\xe9", b"1"),
    ],
)
def test_a_header_that_breaks_or_steers_the_proxy_is_dropped(name, value):
    assert passed((name, value), (b"accept", b"*/*")) == [(b"accept", b"*/*")]


def test_other_headers_pass():
    kept = [(b"x-request-id", b"req-1"), (b"authorization", b"Bearer \xe9"), (b"x-a", b"1")]
    assert passed(*kept) == kept


def test_ray_serve_finds_the_middlewares():
    assert PROXY_MIDDLEWARES == {proxy.VARIABLE: proxy.IMPORT_PATH}
    module, _, name = proxy.IMPORT_PATH.partition(":")
    found = getattr(importlib.import_module(module), name)()
    assert http_util.validate_http_proxy_callback_return(found) == found
    assert hasattr(constants, proxy.VARIABLE)
