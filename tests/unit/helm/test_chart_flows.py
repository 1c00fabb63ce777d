"""Tests that the NetworkPolicies allow the flows that the platform needs, and block other flows."""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.unit.helm.cases import CASES, Case
from tests.unit.helm.flows import (
    API_SERVER,
    DNS,
    FOREIGNER,
    INTERNET,
    STRANGER,
    Peer,
    allowed,
    unused,
)
from tests.unit.helm.pods import expand
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, of_kind

GUARDED = [case for case in CASES if case.name != "no policies, no tests"]
OPERATOR = Peer("the operator", {"app.kubernetes.io/name": "kuberay-operator"}, "kuberay")
PROMETHEUS = Peer("Prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring")
CALLER = Peer("a caller of the endpoint", {"app": "shop"})
RAY_PORTS = (6379, 8265, 10002, 33333)
REDIS = Peer("Redis", namespace="", address="10.20.30.40")
Flow = tuple[Peer, Peer, int, str]


def ray_pods(docs: tuple[Doc, ...]) -> dict[str, list[Peer]]:
    """Return the pods of each Ray cluster, with the head first.

    Each key names the owner of a cluster, for example "RayJob/<name>".
    """
    owners = [doc for doc in docs if cluster_specs(doc)]
    groups = {f"{doc['kind']}/{doc['metadata']['name']}": expand([doc]) for doc in owners}
    return {
        name: [Peer.of(pod) for pod in pods if "ray.io/node-type" in pod["metadata"]["labels"]]
        for name, pods in groups.items()
    }


def outside_ray(docs: tuple[Doc, ...]) -> list[Peer]:
    """Return all pods that are not Ray nodes: submitters, test pods and SeaweedFS."""
    return [
        Peer.of(pod) for pod in expand(docs) if "ray.io/node-type" not in pod["metadata"]["labels"]
    ]


def component(peers: list[Peer], name: str) -> list[Peer]:
    return [peer for peer in peers if peer.labels.get("app.kubernetes.io/component") == name]


def needed(case: Case) -> Iterator[Flow]:
    """Yield every flow that the release needs."""
    docs = case.docs()
    clusters, others = ray_pods(docs), outside_ray(docs)
    stores, submitters = component(others, "seaweedfs"), component(others, "submitter")
    for peers in clusters.values():
        head, everyone = peers[0], peers
        yield from (
            (source, target, port, "TCP")
            for source in everyone
            for target in everyone
            for port in RAY_PORTS
        )
        yield from (
            (source, DNS, 53, protocol) for source in everyone for protocol in ("UDP", "TCP")
        )
        yield from ((source, *_store(stores), "TCP") for source in everyone)
        yield from ((OPERATOR, head, port, "TCP") for port in (8265, 8000))
        yield from ((submitter, head, 8265, "TCP") for submitter in submitters)
        yield from (
            (test, head, 8265, "TCP") for test in component(others, "test") if "ray" in test.name
        )
    yield from (
        (test, *_store(stores), "TCP") for test in component(others, "test") if "store" in test.name
    )
    yield from ((peer, DNS, 53, "UDP") for peer in others)
    yield from _autoscaled(docs)
    yield from _redis(docs)
    yield from _endpoint(docs, others)
    if case.values.get("monitoring"):
        yield from (
            (PROMETHEUS, peer, 8080, "TCP") for peers in clusters.values() for peer in peers
        )
        yield from (
            (PROMETHEUS, peers[0], port, "TCP")
            for peers in clusters.values()
            for port in (44217, 44227)
        )


def _store(stores: list[Peer]) -> tuple[Peer, int]:
    return (stores[0], 8333) if stores else (INTERNET, 443)


def _autoscaled(docs: tuple[Doc, ...]) -> Iterator[Flow]:
    for doc in docs:
        if any(spec.get("enableInTreeAutoscaling") for spec in cluster_specs(doc)):
            yield from (
                (Peer.of(expand([doc])[0]), API_SERVER, port, "TCP") for port in (443, 6443)
            )


def _redis(docs: tuple[Doc, ...]) -> Iterator[Flow]:
    """Yield the flows to Redis: from the head, and from KubeRay's clean-up pod.

    If the clean-up pod cannot reach Redis, the deletion of the cluster hangs.
    """
    for doc in docs:
        if any(spec.get("gcsFaultToleranceOptions") for spec in cluster_specs(doc)):
            head = Peer.of(expand([doc])[0])
            yield head, REDIS, 6379, "TCP"
            yield (
                Peer("the clean-up of Redis", head.labels | {"ray.io/node-type": "redis-cleanup"}),
                REDIS,
                6379,
                "TCP",
            )


def _endpoint(docs: tuple[Doc, ...], others: list[Peer]) -> Iterator[Flow]:
    for doc in of_kind(docs, "RayService"):
        for pod in expand([doc])[1:]:
            yield CALLER, Peer.of(pod), 8000, "TCP"
            yield from ((test, Peer.of(pod), 8000, "TCP") for test in component(others, "test"))


def refused(case: Case) -> Iterator[Flow]:
    """Yield flows that the policies must block.

    These flows go into, out of or between the Ray clusters, or into SeaweedFS.
    """
    clusters = ray_pods(case.docs())
    for peers in clusters.values():
        for source in (STRANGER, FOREIGNER):
            yield from (
                (source, target, port, "TCP")
                for target in peers
                for port in (6379, 8265, 10001, 33333)
            )
        yield from ((peers[0], STRANGER, port, "TCP") for port in (80, 5432))
        yield peers[-1], INTERNET, 22, "TCP"
        yield peers[-1], Peer("metadata", namespace="", address="169.254.169.254"), 80, "TCP"
    for name, peers in clusters.items():
        for other, targets in clusters.items():
            if name != other:
                yield from (
                    (source, targets[0], port, "TCP")
                    for source in peers
                    for port in (6379, 8265, 10001)
                )
    for store in component(outside_ray(case.docs()), "seaweedfs"):
        yield from ((source, store, 8333, "TCP") for source in (STRANGER, FOREIGNER))


@pytest.mark.parametrize("case", GUARDED, ids=str)
def test_needed_flows_pass(case: Case) -> None:
    passes = partial(allowed, case.docs())
    flows = [*needed(case)]
    assert len(flows) > 10
    assert [
        f"{a.name} -> {b.name}:{port}/{protocol}"
        for a, b, port, protocol in flows
        if not passes(a, b, port, protocol)
    ] == []


def test_callers_and_dashboards_can_be_named() -> None:
    case = next(case for case in CASES if case.name == "a judge and callers by name")
    passes = partial(allowed, case.docs())
    worker = Peer.of(expand(of_kind(case.docs(), "RayService"))[-1])
    head = ray_pods(case.docs())["RayCluster/awares-awares-train-cluster"][0]
    judge, portal = (
        Peer("the judge", {"app": "judge"}, "models"),
        Peer("a portal", {"app": "portal"}),
    )
    balancer = Peer("a load balancer", namespace="", address="192.0.2.7")
    assert (
        passes(balancer, worker, 8000) and passes(portal, head, 8265) and passes(head, judge, 8000)
    )
    assert (
        not passes(INTERNET, worker, 8000)
        and not passes(STRANGER, worker, 8000)
        and not passes(portal, head, 6379)
    )
    assert not passes(Peer("an impostor", OPERATOR.labels, "elsewhere"), head, 8265)


@pytest.mark.parametrize("case", GUARDED, ids=str)
def test_other_flows_are_blocked(case: Case) -> None:
    passes = partial(allowed, case.docs())
    assert [
        f"{a.name} -> {b.name}:{port}/{protocol}"
        for a, b, port, protocol in refused(case)
        if passes(a, b, port, protocol)
    ] == []


def test_every_policy_selects_a_pod() -> None:
    """A `podSelector` that matches no pod in any test case has wrong labels."""
    idle = [{*unused(case.docs(), expand(case.docs()))} for case in GUARDED]
    assert set.intersection(*idle) == set()


def test_a_policy_is_evaluated_as_kubernetes_does() -> None:
    """Check that `allowed` evaluates policies as Kubernetes does.

    Without policies, every flow passes. Otherwise the source's egress policies and the target's
    ingress policies must both allow the flow.
    """
    web, client = Peer("web", {"app": "web"}), Peer("client", {"app": "client"})
    assert allowed([], client, web, 80)
    deny = policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    assert not allowed([deny], client, web, 80)
    inwards = policy(
        {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule("from", client, 80)]}
    )
    outwards = policy(
        {
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"],
            "egress": [rule("to", web, 80)],
        }
    )
    assert not allowed([deny, inwards], client, web, 80)
    assert not allowed([deny, outwards], client, web, 80)
    both = [deny, inwards, outwards]
    assert allowed(both, client, web, 80)
    assert not allowed(both, client, web, 81)
    assert not allowed(both, client, web, 80, "UDP")
    assert not allowed(both, web, client, 80)
    assert not allowed(both, Peer("namesake", {"app": "client"}, "elsewhere"), web, 80)


def test_an_address_block_leaves_out_its_exceptions() -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}
    out = policy({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [block]}]})
    source = Peer("source", {"app": "source"})
    assert allowed([out], source, INTERNET, 443)
    assert not allowed([out], source, Peer("metadata", namespace="", address="169.254.169.254"), 80)


def policy(spec: Doc) -> Doc:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p"},
        "spec": spec,
    }


def rule(side: str, peer: Peer, port: int) -> Doc:
    return {side: [{"podSelector": {"matchLabels": peer.labels}}], "ports": [{"port": port}]}
