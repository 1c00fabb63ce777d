"""Runs Services: each Service has a loopback address and forwards connections to its ready pods.

There is no DNS. Instead, the simulator replaces the name of a Service in a pod's command,
environment and files with the Service's address.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulator.api.objects import Body, NotFound, Objects
from tests.simulator.api.selectors import matches
from tests.simulator.network.addresses import Addresses, is_free
from tests.simulator.network.forwarder import Forwarder, Target

Endpoint = Callable[[Body, Any], Target | None]


@dataclass(slots=True)
class _Listening:
    address: str
    ports: dict[int, int] = field(default_factory=dict)  # declared port -> actual port
    turn: Any = field(default_factory=itertools.count)


class Services:
    """Runs all Services of the cluster.

    `endpoint` takes a Pod and a target port. It returns the address and the actual port, or None if
    the Pod is not ready.
    """

    def __init__(self, objects: Objects, addresses: Addresses, endpoint: Endpoint) -> None:
        self._objects, self._addresses, self._endpoint = objects, addresses, endpoint
        self._forwarder = Forwarder()
        self._listening: dict[tuple[str, str], _Listening] = {}
        self._kind, self._pods = objects.kinds.of("v1", "Service"), objects.kinds.of("v1", "Pod")

    def reconcile(self) -> None:
        """Open the ports of new Services, and close the ports of deleted Services."""
        bodies = {
            (body["metadata"]["namespace"], body["metadata"]["name"]): body
            for body in self._objects.list(self._kind)
        }
        for key in list(self._listening):
            if key not in bodies:
                self._forget(key)
        for key, body in bodies.items():
            for port in body["spec"].get("ports") or []:
                self._listen(key, port["port"])
            if "clusterIP" not in body["spec"] and key in self._listening:
                self._assign(key)

    def address(self, namespace: str, name: str, port: int) -> str:
        """Return host:port of a Service on this machine. Raises KeyError for an unknown Service."""
        found = self._listening[namespace, name]
        return f"{found.address}:{found.ports[port]}"

    def rewrite(self, text: str, namespace: str) -> str:
        """Replace each Service name in `text` with an address.

        `namespace` is the namespace of the pod that uses `text`.
        """
        self.reconcile()
        for (space, name), found in self._listening.items():
            text = _pattern(space, name, space == namespace).sub(
                lambda match, found=found: _replace(match, found), text
            )
        return text

    def stop(self) -> None:
        """Stop listening and close every connection."""
        self._forwarder.stop()

    def _listen(self, key: tuple[str, str], port: int) -> None:
        found = self._listening.get(key)
        if found is None:
            found = self._listening[key] = _Listening(self._addresses.address())
        if port not in found.ports:
            actual = (
                port if port > 1023 and is_free(found.address, port) else self._addresses.port()
            )
            self._forwarder.listen(found.address, actual, lambda: self._choose(key, port, found))
            found.ports[port] = actual

    def _assign(self, key: tuple[str, str]) -> None:
        """Write the Service's address to spec.clusterIP, because helm 3 waits for this field."""
        with self._objects.changed, contextlib.suppress(NotFound):
            body = self._objects.get(self._kind, *key)
            self._objects.replace(
                self._kind,
                *key,
                {**body, "spec": {**body["spec"], "clusterIP": self._listening[key].address}},
            )

    def _forget(self, key: tuple[str, str]) -> None:
        found = self._listening.pop(key)
        for port in found.ports.values():
            self._forwarder.close(found.address, port)

    def _choose(self, key: tuple[str, str], port: int, found: _Listening) -> Target | None:
        """Return the address of the pod for the next connection, or None if no pod is ready.

        The ready pods take turns.
        """
        try:
            body = self._objects.get(self._kind, *key)
        except NotFound:
            return None
        spec = next((item for item in body["spec"]["ports"] if item["port"] == port), None)
        if spec is None:
            return None
        selector: Mapping[str, str] = body["spec"].get("selector") or {}
        pods = self._objects.list(self._pods, key[0], lambda pod: matches(selector, pod))
        targets = [
            target for pod in pods if (target := self._endpoint(pod, spec.get("targetPort", port)))
        ]
        return targets[next(found.turn) % len(targets)] if targets else None


def _pattern(namespace: str, name: str, near: bool) -> re.Pattern[str]:
    """Return a pattern that matches the names of a Service.

    If `near` is true, the text is in the Service's namespace. The pattern then also matches the
    short name before a port, such as `store:8333`.
    """
    domain = r"(?:\.svc(?:\.cluster\.local)?)?"
    full = rf"{re.escape(name)}\.{re.escape(namespace)}{domain}(?::(?P<port>\d+))?"
    short = rf"|{re.escape(name)}:(?P<near>\d+)" if near else ""
    return re.compile(rf"(?<![\w.-])(?:{full}{short})(?![\w-])(?!\.\w)")


def _replace(match: re.Match[str], found: _Listening) -> str:
    port = match.groupdict().get("port") or match.groupdict().get("near")
    return (
        found.address
        if port is None
        else f"{found.address}:{found.ports.get(int(port), int(port))}"
    )
