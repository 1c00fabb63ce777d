"""Decides whether NetworkPolicies let a source connect to a port of a target.

The source's egress policies and the target's ingress policies must both allow the connection. Pods
and addresses outside the release's namespace are assumed to have no policies.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.unit.helm.render import NAMESPACE, Doc, of_kind
from tests.unit.helm.selectors import matches, port_of


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection: a pod of the release, another pod, or an outside IP address.

    Example:
        Peer("DNS", {"k8s-app": "kube-dns"}, "kube-system")
        Peer("S3", address="52.216.0.1", namespace="")
    """

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    """The pod's namespace, or "" for an outside IP address."""
    address: str = "10.1.2.3"
    pod: Doc | None = None
    """The document of a pod of the release, in which named ports are looked up."""

    @classmethod
    def of(cls, pod: Doc) -> "Peer":
        return cls(pod["metadata"]["name"], pod["metadata"].get("labels") or {}, pod=pod)


DNS = Peer("DNS", {"k8s-app": "kube-dns"}, "kube-system")
INTERNET = Peer("an address outside", namespace="", address="52.216.0.1")
API_SERVER = Peer("the Kubernetes API", namespace="", address="10.96.0.1")
STRANGER = Peer("a stranger in the namespace", {"app": "stranger"})
FOREIGNER = Peer(
    "a pod of another namespace", {"app.kubernetes.io/part-of": "awares-train"}, "elsewhere"
)


def allowed(
    docs: Sequence[Doc], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether the NetworkPolicies in `docs` let `source` connect to `port` of `target`."""
    policies = of_kind(docs, "NetworkPolicy")
    return _passes(policies, "Egress", source, target, target, port, protocol) and _passes(
        policies, "Ingress", target, source, target, port, protocol
    )


def _passes(
    policies: Sequence[Doc],
    direction: str,
    subject: Peer,
    other: Peer,
    target: Peer,
    port: int,
    protocol: str,
) -> bool:
    """Return whether the policies of `subject` allow traffic to or from `other` in one direction.

    `port` is a port of `target`, which is `subject` or `other`.
    """
    if subject.namespace != NAMESPACE:
        return True
    own = [
        policy["spec"]
        for policy in policies
        if direction in _types(policy["spec"])
        and matches(policy["spec"]["podSelector"], subject.labels)
    ]
    side = "to" if direction == "Egress" else "from"
    rules = [rule for spec in own for rule in spec.get(direction.lower()) or ()]
    return not own or any(_rule(rule, side, other, target, port, protocol) for rule in rules)


def _types(spec: Doc) -> list[str]:
    return spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _rule(rule: Doc, side: str, other: Peer, target: Peer, port: int, protocol: str) -> bool:
    peers, ports = rule.get(side) or (), rule.get("ports") or ()
    return (not peers or any(_peer(peer, other) for peer in peers)) and (
        not ports or any(_port(entry, target, port, protocol) for entry in ports)
    )


def _peer(peer: Doc, other: Peer) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(other.address)
        inside = address in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return inside and not any(
            address in ipaddress.ip_network(part) for part in peer["ipBlock"].get("except") or ()
        )
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        here = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        here = other.namespace == NAMESPACE
    return here and matches(peer.get("podSelector"), other.labels)


def _port(entry: dict[str, Any], target: Peer, port: int, protocol: str) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    wanted = entry.get("port")
    if isinstance(wanted, str):
        return target.pod is not None and port_of(target.pod, wanted) == port
    return wanted is None or wanted <= port <= entry.get("endPort", wanted)


def unused(docs: Sequence[Doc], pods: Sequence[Doc]) -> Iterator[str]:
    """Yield a message for each NetworkPolicy and each `podSelector` of a rule that matches no pod.

    A `podSelector` next to a `namespaceSelector` is not checked, because its pods may be outside
    the release.
    """
    labels = [pod["metadata"].get("labels") or {} for pod in pods]
    for policy in of_kind(docs, "NetworkPolicy"):
        spec, name = policy["spec"], policy["metadata"]["name"]
        if not any(matches(spec["podSelector"], each) for each in labels):
            yield f"NetworkPolicy/{name}: selects no pod"
        for side, direction in (("from", "ingress"), ("to", "egress")):
            for rule in spec.get(direction) or ():
                for peer in rule.get(side) or ():
                    if peer.keys() == {"podSelector"} and not any(
                        matches(peer["podSelector"], each) for each in labels
                    ):
                        yield (
                            f"NetworkPolicy/{name}: {direction} {side} {peer['podSelector']} "
                            "names no pod"
                        )
