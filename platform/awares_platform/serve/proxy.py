"""Installs middlewares in Ray Serve's proxies, and cleans the headers of each request.

    client --HTTP--> Connection --> CleanHeaders --> Front --> Ray Serve's proxy --> replica

Ray Serve finds this module through the environment variable `VARIABLE`.
"""

import time

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus, ServeStatus
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from awares_platform.serve import connection, draining
from awares_platform.serve.front import Front
from awares_platform.serve.outlook import Availability, Outlook

INGRESS = "awares"
"""The name of the deployment that answers HTTP requests."""
UPDATE_S = 300.0
"""Seconds after the start of an update during which requests wait for the first new replica."""
VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "awares_platform.serve.proxy:middlewares"

_STEERING = {
    b"serve-multiplexed-model-id",
    b"x-session-id",
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
}
_ROUTER = b"x-serve-router-"
_REQUEST_ID = b"x-request-id"
_MOST_ID = 128


def middlewares() -> list[Middleware]:
    """Return the middlewares of each proxy. Ray Serve calls this function in the proxy.

    The last middleware sees a request first. The proxy's HTTP server starts after this call, and so
    uses the connection class set here.
    """
    connection.use()
    outlook = Outlook(availability, draining.draining, _report)
    return [Middleware(Front, outlook), Middleware(CleanHeaders)]


def _report(ongoing: int) -> None:
    draining.report(ray.get_runtime_context().get_node_id(), ongoing)


def availability() -> Availability:
    """Return the availability of the application."""
    return available(serve.status(), time.time())


def available(status: ServeStatus, now: float) -> Availability:
    """Return the availability of the application at the time `now`, in seconds since the epoch.

    A running application without replicas counts as READY, because a request starts a replica. An
    update counts as UPDATING for at most `UPDATE_S` seconds.
    """
    applications = status.applications.values()
    running = sum(
        count
        for application in applications
        for name, deployment in application.deployments.items()
        if name == INGRESS
        for state, count in deployment.replica_states.items()
        if state == "RUNNING"
    )
    if running or any(one.status is ApplicationStatus.RUNNING for one in applications):
        return Availability.READY
    updating = any(
        one.status is ApplicationStatus.DEPLOYING and now - one.last_deployed_time_s < UPDATE_S
        for one in applications
    )
    return Availability.UPDATING if updating else Availability.AWAY


class CleanHeaders:
    """Drops request headers that steer Ray Serve, and headers that Ray Serve cannot decode.

    Example:
        CleanHeaders(app)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the remaining headers."""
        if scope["type"] == "http":
            kept = [(name, value) for name, value in scope["headers"] if _passes(name, value)]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def _passes(name: bytes, value: bytes) -> bool:
    plain = name.lower().replace(b"_", b"-")
    if plain == _REQUEST_ID:
        return len(value) <= _MOST_ID and value.isascii() and value.decode().isprintable()
    return name.isascii() and plain not in _STEERING and not plain.startswith(_ROUTER)
