"""Checks selectors, ports and addresses of a rendered chart.

KubeRay itself creates the Services `<cluster>-head-svc`, `<service>-head-svc` and
`<service>-serve-svc`. The checks treat these Services as if the chart had rendered them.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tests.unit.helm.pods import containers
from tests.unit.helm.render import NAMESPACE, Doc, name_of, of_kind

SERVE_PORT = 8000
HEAD_PORTS = {6379, 8265, 10001, 8080, SERVE_PORT}
HERE = ("localhost", "127.0.0.1", "0.0.0.0")
HOST = r"[a-z0-9][a-z0-9.-]*"
ADDRESS = re.compile(
    rf"https?://({HOST})(?::(\d+))?|(?<![/\w.-])({HOST}\.svc(?:\.cluster\.local)?)(?::(\d+))?"
)


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches the labels. An empty selector matches all labels."""
    selector = selector or {}
    same = all(
        labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    )
    return same and all(
        _expression(part, labels) for part in selector.get("matchExpressions") or ()
    )


def _expression(part: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(part["key"]), part.get("values") or ()
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[part["operator"]]


def selected(pods: Sequence[Doc], selector: Mapping[str, Any] | None) -> list[Doc]:
    """Return the pods that a label selector selects."""
    return [pod for pod in pods if matches(selector, pod["metadata"].get("labels") or {})]


def port_of(pod: Doc, port: int | str) -> int | None:
    """Return the number of a container port, or None if the pod has no such port.

    `port` is the port's number or its name.
    """
    for container in containers(pod):
        for entry in container.get("ports") or ():
            if port in (entry["containerPort"], entry.get("name")):
                return entry["containerPort"]
    return None


def service_ports(docs: Sequence[Doc]) -> dict[str, set[int | str]]:
    """Return a map from each Service to the numbers and names of its ports.

    The map includes the Services that KubeRay creates.
    """
    found: dict[str, set[int | str]] = {}
    for doc in of_kind(docs, "Service"):
        found[doc["metadata"]["name"]] = {
            value
            for port in doc["spec"]["ports"]
            for value in (port["port"], port.get("name"))
            if value
        }
    for doc in of_kind(docs, "RayCluster", "RayService"):
        found[f"{doc['metadata']['name'][:41]}-head-svc"] = {*HEAD_PORTS}
        if doc["kind"] == "RayService":
            found[f"{doc['metadata']['name'][:40]}-serve-svc"] = {SERVE_PORT}
    return found


def services(docs: Sequence[Doc], pods: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each Service that selects no pod, and for each missing target port."""
    for doc in of_kind(docs, "Service"):
        if not doc["spec"].get("selector"):
            continue
        behind = selected(
            pods,
            {
                "matchLabels": {
                    k: v for k, v in doc["spec"]["selector"].items() if k != "ray.io/serve"
                }
            },
        )
        if not behind:
            yield f"{name_of(doc)}: selects no pod: {doc['spec']['selector']}"
        for port in doc["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            yield from (
                f"{name_of(doc)}: {name_of(pod)} has no port {target}"
                for pod in behind
                if port_of(pod, target) is None
            )


def routes(docs: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each missing backend of an Ingress or HTTPRoute.

    A backend is a Service and one of its ports.
    """
    known = service_ports(docs)
    for doc in of_kind(docs, "Ingress", "HTTPRoute"):
        for name, port in _backends(doc):
            if port not in known.get(name, ()):
                yield f"{name_of(doc)}: there is no Service {name} with port {port}"


def _backends(doc: Doc) -> Iterator[tuple[str, int | str]]:
    for rule in doc["spec"]["rules"]:
        for path in (rule.get("http") or {}).get("paths", ()):
            service = path["backend"]["service"]
            yield service["name"], service["port"].get("number") or service["port"]["name"]
        for backend in rule.get("backendRefs") or ():
            yield backend["name"], backend["port"]


def monitors(docs: Sequence[Doc], pods: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each PodMonitor that selects no pod.

    Also yield a message for each port of a PodMonitor that no selected pod has.
    """
    for doc in of_kind(docs, "PodMonitor"):
        behind = selected(pods, doc["spec"]["selector"])
        if not behind:
            yield f"{name_of(doc)}: selects no pod"
        for endpoint in doc["spec"]["podMetricsEndpoints"]:
            port = endpoint.get("port") or endpoint.get("portNumber")
            if behind and not any(port_of(pod, port) for pod in behind):
                yield f"{name_of(doc)}: no selected pod has the port {port}"


def budgets(docs: Sequence[Doc], pods: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each PodDisruptionBudget that selects no pod.

    Also check that workloads select their own pods, and that a StatefulSet's Service exists.
    """
    for doc in of_kind(docs, "PodDisruptionBudget"):
        if not selected(pods, doc["spec"]["selector"]):
            yield f"{name_of(doc)}: selects no pod"
    for doc in of_kind(docs, "Deployment", "StatefulSet"):
        if not matches(doc["spec"]["selector"], doc["spec"]["template"]["metadata"]["labels"]):
            yield f"{name_of(doc)}: its selector does not select its own pods"
        if doc["kind"] == "StatefulSet" and doc["spec"]["serviceName"] not in service_ports(docs):
            yield f"{name_of(doc)}: there is no Service {doc['spec']['serviceName']}"


def spreads(pods: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each topology spread constraint that does not select its own pod."""
    for pod in pods:
        for part in pod["spec"].get("topologySpreadConstraints") or ():
            if not matches(part.get("labelSelector"), pod["metadata"]["labels"]):
                yield (
                    f"{name_of(pod)}: its topology spread over {part['topologyKey']} does not "
                    "count itself"
                )


def clusters(docs: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each job whose `clusterSelector` names no rendered RayCluster."""
    names = {doc["metadata"]["name"] for doc in of_kind(docs, "RayCluster")}
    for doc in of_kind(docs, "RayJob", "RayCronJob"):
        selector = doc["spec"].get("jobTemplate", doc["spec"]).get("clusterSelector")
        if selector and selector["ray.io/cluster"] not in names:
            yield f"{name_of(doc)}: there is no RayCluster {selector['ray.io/cluster']}"


def addresses(
    docs: Sequence[Doc], pods: Sequence[Doc], outside: Collection[str] = ()
) -> Iterator[str]:
    """Yield a message for each address in the release whose Service or port does not exist.

    The addresses come from variables, commands, arguments and TOML files. Hosts in `outside` are
    accepted.
    """
    known = service_ports(docs)
    for where, text in _texts(docs, pods):
        for found in ADDRESS.finditer(text):
            host, port = found[1] or found[3], found[2] or found[4]
            name, _, rest = host.partition(".")
            if host in HERE or f"Host/{host}" in outside or "." in host and ".svc" not in host:
                continue
            if rest and rest.split(".")[0] != NAMESPACE:
                yield f"{where}: {host} is not in the namespace {NAMESPACE}"
            elif name not in known:
                yield f"{where}: there is no Service {name}"
            elif port and int(port) not in known[name]:
                yield f"{where}: Service {name} has no port {port}"


def _texts(docs: Sequence[Doc], pods: Sequence[Doc]) -> Iterator[tuple[str, str]]:
    for doc in of_kind(docs, "ConfigMap"):
        for key, text in (doc.get("data") or {}).items():
            if key.endswith(".toml"):
                yield f"{name_of(doc)}: {key}", text
    for pod in pods:
        for container in containers(pod):
            for entry in container.get("env") or ():
                yield f"{name_of(pod)}: {entry['name']}", str(entry.get("value", ""))
            for text in [*(container.get("command") or ()), *(container.get("args") or ())]:
                yield f"{name_of(pod)}: {container['name']}", text
