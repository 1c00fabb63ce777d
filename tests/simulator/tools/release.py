"""Installs the chart's trial preset and the preset's three Secrets in the simulator."""

import base64
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulator.api.objects import Body
from tests.simulator.controller import Controller
from tests.simulator.tools.helm import ROOT, Helm

CHART = ROOT / "helm" / "awares-train"
PRESET = CHART / "presets" / "trial.yaml"
NAME, NAMESPACE = "trial", "default"
_SECRETS = {
    "awares-store": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "awares-ray": ("auth_token",),
    "awares-endpoint": ("token",),
}


@dataclass(frozen=True, slots=True)
class Release:
    """The Helm release "trial": the chart with the values of presets/trial.yaml.

    `keys` maps the name of each Secret that the preset needs to the Secret's data.
    """

    helm: Helm
    controller: Controller
    keys: dict[str, dict[str, str]] = field(repr=False)

    def install(self, *values: str) -> str:
        """Create the Secrets and install the chart, as the preset's first comment describes."""
        objects = self.controller.objects
        for name, data in self.keys.items():
            objects.create(
                objects.kinds.of("v1", "Secret"),
                NAMESPACE,
                {"metadata": {"name": name}, "stringData": data},
            )
        return self.helm.do("install", NAME, str(CHART), "-f", str(PRESET), *_set(values))

    def upgrade(self, *values: str) -> str:
        """Upgrade the release to the preset with these `--set` values."""
        return self.helm.do("upgrade", NAME, str(CHART), "-f", str(PRESET), *_set(values))

    def all(self, kind: str) -> list[Body]:
        """Return all objects of a kind in the namespace. `kind` is a name such as RayJob."""
        kinds = self.controller.objects.kinds
        [found] = [item for item in kinds.all if item.name == kind and item.version != "v1alpha1"]
        return self.controller.objects.list(found, NAMESPACE)

    def one(self, kind: str) -> Body:
        """Return the only object of a kind."""
        [body] = self.all(kind)
        return body

    def service(self, component: str) -> tuple[str, int]:
        """Return the name and first port of the Service that the chart renders for a component."""
        label = "app.kubernetes.io/component"
        bodies = [
            body
            for body in self.all("Service")
            if (body["metadata"].get("labels") or {}).get(label) == component
        ]
        owned = [body for body in bodies if not body["metadata"].get("ownerReferences")]
        return owned[0]["metadata"]["name"], owned[0]["spec"]["ports"][0]["port"]

    def url(self, component: str) -> str:
        """Return the URL of a component's Service on this machine."""
        services = self.controller.kubelet.services
        return f"http://{services.address(NAMESPACE, *self.service(component))}"

    @property
    def token(self) -> str:
        """The bearer token of the endpoint."""
        return self.keys["awares-endpoint"]["token"]

    def on_head(self, command: str) -> str:
        """Adapt `command` for the simulated head pod of the permanent RayCluster.

        Replace mount paths with directories, and names of Services with addresses, on this machine.
        """
        heads = [
            body
            for body in self.all("Pod")
            if body["metadata"]["labels"].get("ray.io/node-type") == "head"
        ]
        [head] = [
            body
            for body in heads
            if body["metadata"]["labels"]["app.kubernetes.io/component"] == "cluster"
        ]
        pod = self.controller.kubelet.pod(head)
        assert pod is not None
        return pod.text(command, pod.body["spec"]["containers"][0])

    def left(self) -> dict[str, list[str]]:
        """Return a map from kinds to the names of objects that remain after `helm uninstall`.

        Pods of `helm test` are left out, because the chart keeps the pod of a failed test.
        """
        kinds = ("RayCluster", "RayJob", "RayService", "Service", "Pod")
        names = {kind: [body["metadata"]["name"] for body in self.all(kind)] for kind in kinds}
        return {
            kind: kept
            for kind, found in names.items()
            if (kept := [name for name in found if "test-" not in name])
        }

    def logs(self) -> str:
        """Return the end of every pod's log, for messages of assertions."""
        names = [body["metadata"]["name"] for body in self.all("Pod")]
        return "\n".join(
            f"== {name}\n{self.controller.kubelet.logs(NAMESPACE, name)[-1500:]}" for name in names
        )

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = 600) -> None:
        """Wait until `condition` holds. `what` describes the condition in the error message."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"no {what} within {timeout_s:.0f} s\n{self.logs()}"
            time.sleep(0.3)


def _set(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def new_keys() -> dict[str, dict[str, str]]:
    """Return random values for all keys of the trial preset's three Secrets."""
    return {name: {key: secrets.token_hex(20) for key in keys} for name, keys in _SECRETS.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """The endpoint's answer to one question.

    Example:
        Answer(200, {"choices": [...], "usage": {"completion_tokens": 3}})
    """

    status: int
    body: dict[str, Any]


def ask(url: str, image: bytes, question: str, token: str | None) -> Answer:
    """Ask one question over HTTP. Raises OSError if the connection fails."""
    picture = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "text", "text": question},
    ]
    body = {"model": "awares", "messages": [{"role": "user", "content": content}]}
    headers = {
        "content-type": "application/json",
        **({"authorization": f"Bearer {token}"} if token else {}),
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=180) as response:
            return Answer(response.status, json.load(response))
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        return Answer(error.code, {"error": text})
