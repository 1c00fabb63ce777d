"""Checks documents against the rules that the KubeRay 1.7 operator enforces beyond its CRDs.

RayCluster --> cluster rules
RayService --> service rules; its rayClusterConfig --> cluster rules
RayJob ------> job rules; its rayClusterSpec --------> cluster rules
RayCronJob --> cron rule; its jobTemplate -----------> the rules of a RayJob
"""

import re
from collections.abc import Collection, Iterator

from tests.unit.helm import operator_cluster, operator_job, operator_service
from tests.unit.helm.operator_cluster import Cluster
from tests.unit.helm.render import Doc, name_of

DEFAULT_GATES = frozenset(
    {
        "RayClusterStatusConditions",
        "RayJobDeletionPolicy",
        "RayMultiHostIndexing",
        "RayServiceIncrementalUpgrade",
    }
)
NAME_LIMITS = {"RayCluster": 53, "RayService": 47, "RayJob": 47, "RayCronJob": 36}
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def faults(doc: Doc, gates: Collection[str] = DEFAULT_GATES) -> list[str]:
    """Return one message for each rule that the document breaks.

    The list is empty if the document is not a KubeRay resource.
    """
    if doc["kind"] not in NAME_LIMITS:
        return []
    return [
        f"{name_of(doc)}: {sentence}" for sentence in (*name_rule(doc), *_kind_rules(doc, gates))
    ]


def name_rule(doc: Doc) -> Iterator[str]:
    """Yield a message if the name is too long or is not a DNS-1035 label.

    The operator builds the names of Services and other objects from this name and a suffix.
    """
    name, limit = doc["metadata"]["name"], NAME_LIMITS[doc["kind"]]
    if len(name) > limit:
        yield f"the name has {len(name)} characters, a {doc['kind']} may have {limit}"
    if not DNS_1035.fullmatch(name):
        yield (
            f"the name {name!r} is no DNS-1035 label: use lower-case letters, digits and "
            "hyphens, a letter first"
        )


def _kind_rules(doc: Doc, gates: Collection[str]) -> Iterator[str]:
    kind, spec, annotations = doc["kind"], doc["spec"], doc["metadata"].get("annotations") or {}
    if kind == "RayCluster":
        yield from _cluster(Cluster(spec, annotations, kind), gates)
    elif kind == "RayService":
        for rule in operator_service.RULES:
            yield from rule(spec, annotations, gates)
        yield from _cluster(Cluster(spec["rayClusterConfig"], annotations, kind), gates)
    else:
        if kind == "RayCronJob":
            yield from operator_job.cron_rule(spec, gates)
        yield from _job(spec["jobTemplate"] if kind == "RayCronJob" else spec, annotations, gates)


def _job(spec: Doc, annotations: Doc, gates: Collection[str]) -> Iterator[str]:
    for rule in operator_job.RULES:
        yield from rule(spec, gates)
    if spec.get("rayClusterSpec"):
        yield from _cluster(Cluster(spec["rayClusterSpec"], annotations, "RayJob"), gates)


def _cluster(cluster: Cluster, gates: Collection[str]) -> Iterator[str]:
    for rule in operator_cluster.RULES:
        yield from rule(cluster, gates)
