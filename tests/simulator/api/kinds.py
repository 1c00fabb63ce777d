"""Lists the kinds that the simulator's API server knows: built-in kinds and kinds from CRD files.

The tests take the directory of the CRD files from the environment variable AWARES_CRDS.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object in one version of an API group.

    Example:
        Kind("apps", "v1", "Deployment", "deployments")
    """

    group: str
    """The API group, or "" for the core group."""
    version: str
    name: str
    plural: str
    """The kind's name in URLs."""
    namespaced: bool = True
    schema: dict[str, Any] | None = field(default=None, repr=False, compare=False, hash=False)
    """The CRD's openAPIV3Schema, or None for a built-in kind."""

    @property
    def api_version(self) -> str:
        """The `apiVersion` of objects of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version


_NAMESPACED = {
    "v1": (
        "ConfigMap",
        "Endpoints",
        "Event",
        "PersistentVolumeClaim",
        "Pod",
        "ReplicationController",
        "ResourceQuota",
        "Secret",
        "Service",
    )
    + ("LimitRange", "ServiceAccount"),
    "apps/v1": ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet", "ControllerRevision"),
    "batch/v1": ("CronJob", "Job"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
    "coordination.k8s.io/v1": ("Lease",),
}
_CLUSTERED = {
    "v1": ("Namespace", "Node", "PersistentVolume"),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding"),
    "scheduling.k8s.io/v1": ("PriorityClass",),
    "storage.k8s.io/v1": ("StorageClass",),
    "apiextensions.k8s.io/v1": ("CustomResourceDefinition",),
    "admissionregistration.k8s.io/v1": (
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ),
}


def builtin() -> Iterator[Kind]:
    """Yield the built-in kinds of Kubernetes that the simulator supports."""
    for namespaced, table in ((True, _NAMESPACED), (False, _CLUSTERED)):
        for api_version, names in table.items():
            group, _, version = api_version.rpartition("/")
            for name in names:
                yield Kind(group, version, name, _plural(name), namespaced)


def _plural(name: str) -> str:
    lower = name.lower()
    if lower.endswith("endpoints"):
        return lower
    if lower.endswith(("s", "x", "ch")):
        return f"{lower}es"
    return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"


def custom(directory: Path) -> Iterator[Kind]:
    """Yield one kind for each served version of every CRD file in `directory`."""
    for path in sorted(directory.glob("*.yaml")):
        spec = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            if version["served"]:
                names, schema = spec["names"], version["schema"]["openAPIV3Schema"]
                yield Kind(
                    spec["group"],
                    version["name"],
                    names["kind"],
                    names["plural"],
                    spec["scope"] == "Namespaced",
                    schema,
                )


class Kinds:
    """Finds a kind by path (group, version, plural) or by an object's apiVersion and kind."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.all = tuple(kinds)
        self._by_path = {(kind.group, kind.version, kind.plural): kind for kind in self.all}
        self._by_name = {(kind.api_version, kind.name): kind for kind in self.all}

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        """Return the kind with this group, version and plural name, or None if there is none."""
        return self._by_path.get((group, version, plural))

    def of(self, api_version: str, name: str) -> Kind:
        """Return the kind with this apiVersion and name. Raises KeyError for an unknown kind."""
        return self._by_name[api_version, name]

    def knows(self, api_version: str, name: str) -> bool:
        """Return whether the cluster has this kind."""
        return (api_version, name) in self._by_name

    def groups(self) -> dict[str, list[str]]:
        """Return a map from each API group to its versions. The core group is left out."""
        found: dict[str, list[str]] = {}
        for kind in self.all:
            versions = found.setdefault(kind.group, []) if kind.group else []
            if kind.version not in versions:
                versions.append(kind.version)
        return found

    def resources(self, group: str, version: str) -> list[dict[str, Any]]:
        """Return the discovery entries of one version of an API group.

        Each kind has one entry for its objects and one entry for the `status` subresource.
        """
        rows: list[dict[str, Any]] = []
        for kind in self.all:
            if (kind.group, kind.version) == (group, version):
                row = {
                    "kind": kind.name,
                    "namespaced": kind.namespaced,
                    "singularName": kind.name.lower(),
                }
                rows.append({**row, "name": kind.plural, "verbs": list(VERBS)})
                rows.append(
                    {**row, "name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]}
                )
        return rows
