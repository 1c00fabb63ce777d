"""Finds references to objects that neither the release nor its user creates.

    documents --> World (documents, pods) --> one function for each kind of reference --> messages

A reference names a Secret, a key of a ConfigMap, a port, a pod (by a selector) or a path.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.helm import selectors
from tests.unit.helm.pods import containers, expand
from tests.unit.helm.render import ROOT, Doc, name_of, of_kind

OPERATOR_ENV = {
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_ADDRESS",
    "RAY_DASHBOARD_ADDRESS",
    "RAY_JOB_SUBMISSION_ID",
    "RAY_CLUSTER_NAME",
}
OPERATOR_ENV |= {
    "KUBERAY_GEN_RAY_START_CMD",
    "RAY_IP",
    "RAY_PORT",
    "FQ_RAY_IP",
    "HOME",
    "PATH",
    "HOSTNAME",
    "PYTHONPATH",
}


@dataclass(frozen=True, slots=True)
class World:
    """The rendered objects, and the objects that exist outside the release.

    Example:
        World.of(render(values), {"Secret/ray-token": {"auth_token"}})
    """

    docs: Sequence[Doc]
    pods: Sequence[Doc]
    """The pods of `docs`, including pods that controllers create from templates."""
    outside: Mapping[str, Collection[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, docs: Sequence[Doc], outside: Mapping[str, Collection[str]]) -> "World":
        return cls(docs, expand(docs), outside)

    def keys(self, kind: str, name: str) -> Collection[str] | None:
        """Return the keys of a ConfigMap or Secret, or None if the object does not exist."""
        if f"{kind}/{name}" in self.outside:
            return self.outside[f"{kind}/{name}"]
        for doc in of_kind(self.docs, kind):
            if doc["metadata"]["name"] == name:
                return {*(doc.get("data") or {}), *(doc.get("stringData") or {})}
        return self._external_keys(name) if kind == "Secret" else None

    def _external_keys(self, name: str) -> Collection[str] | None:
        for doc in of_kind(self.docs, "ExternalSecret"):
            if doc["spec"].get("target", {}).get("name", doc["metadata"]["name"]) == name:
                return {entry["secretKey"] for entry in doc["spec"].get("data") or ()}
        return None

    def exists(self, kind: str, name: str) -> bool:
        return f"{kind}/{name}" in self.outside or any(
            doc["metadata"]["name"] == name for doc in of_kind(self.docs, kind)
        )


def faults(world: World) -> list[str]:
    """Return the messages of all rules of this module and of selectors.py."""
    docs, pods = world.docs, world.pods
    found = [
        sentence
        for rule in (volumes, mounts, environment, accounts, variables, paths)
        for sentence in rule(world)
    ]
    found += [
        sentence
        for rule in (selectors.services, selectors.monitors, selectors.budgets)
        for sentence in rule(docs, pods)
    ]
    found += [*selectors.routes(docs), *selectors.clusters(docs), *selectors.spreads(pods)]
    return found + [*selectors.addresses(docs, pods, world.outside)]


def _missing(
    world: World, kind: str, name: str, keys: Collection[str], optional: bool, where: str
) -> Iterator[str]:
    have = world.keys(kind, name)
    if have is None and not optional:
        yield f"{where}: there is no {kind} {name}"
    for key in sorted(set(keys) - set(have or keys)):
        yield f"{where}: {kind} {name} has no key {key}"


def volumes(world: World) -> Iterator[str]:
    """Yield a message for each missing ConfigMap, Secret, key or claim that a volume names."""
    for pod in world.pods:
        for volume in pod["spec"].get("volumes") or ():
            where = f"{name_of(pod)}: volume {volume['name']}"
            sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
            for source in sources:
                for key, kind, field_ in (
                    ("configMap", "ConfigMap", "name"),
                    ("secret", "Secret", "secretName"),
                ):
                    if key in source:
                        part = source[key]
                        items = [item["key"] for item in part.get("items") or ()]
                        yield from _missing(
                            world,
                            kind,
                            part.get(field_) or part["name"],
                            items,
                            part.get("optional", False),
                            where,
                        )
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim and not world.exists("PersistentVolumeClaim", claim):
                yield f"{where}: there is no claim {claim}"


def mounts(world: World) -> Iterator[str]:
    """Yield a message for each missing volume, each unused volume and each path mounted twice."""
    for pod in world.pods:
        names = [volume["name"] for volume in pod["spec"].get("volumes") or ()] + _claim_templates(
            world, pod
        )
        used = set()
        for container in containers(pod):
            where = f"{name_of(pod)}: {container['name']}"
            targets = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
            used |= {mount["name"] for mount in container.get("volumeMounts") or ()}
            yield from (
                f"{where}: {path} is mounted twice"
                for path in sorted({path for path in targets if targets.count(path) > 1})
            )
            for mount in container.get("volumeMounts") or ():
                if mount["name"] not in names:
                    yield (
                        f"{where}: {mount['mountPath']} mounts {mount['name']}, which is no "
                        "volume of the pod"
                    )
        yield from (
            f"{name_of(pod)}: volume {name} is mounted nowhere"
            for name in names
            if name not in used
        )


def _claim_templates(world: World, pod: Doc) -> list[str]:
    owners = [
        doc
        for doc in of_kind(world.docs, "StatefulSet")
        if pod["metadata"]["name"] == f"statefulset-{doc['metadata']['name']}-pod"
    ]
    return [
        claim["metadata"]["name"]
        for doc in owners
        for claim in doc["spec"].get("volumeClaimTemplates") or ()
    ]


def environment(world: World) -> Iterator[str]:
    """Yield a message for each variable that is set twice.

    Also yield a message for each missing Secret, ConfigMap or key that the environment refers to.
    """
    for pod in world.pods:
        for container in containers(pod):
            where = f"{name_of(pod)}: {container['name']}"
            names = [entry["name"] for entry in container.get("env") or ()]
            yield from (
                f"{where}: {name} is set twice"
                for name in sorted({name for name in names if names.count(name) > 1})
            )
            for entry in container.get("env") or ():
                yield from _source(world, entry.get("valueFrom") or {}, f"{where}: {entry['name']}")
            for entry in container.get("envFrom") or ():
                yield from _source(world, entry, f"{where}: envFrom")


def _source(world: World, source: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, kind in (
        ("configMapKeyRef", "ConfigMap"),
        ("secretKeyRef", "Secret"),
        ("configMapRef", "ConfigMap"),
        ("secretRef", "Secret"),
    ):
        if key in source:
            part = source[key]
            yield from _missing(
                world,
                kind,
                part["name"],
                [part["key"]] if "key" in part else [],
                part.get("optional", False),
                where,
            )


def accounts(world: World) -> Iterator[str]:
    """Yield a message for each missing ServiceAccount, image pull Secret and Ray token Secret."""
    for pod in world.pods:
        account = pod["spec"].get("serviceAccountName", "default")
        if account != "default" and not world.exists("ServiceAccount", account):
            yield f"{name_of(pod)}: there is no ServiceAccount {account}"
        for secret in pod["spec"].get("imagePullSecrets") or ():
            if not world.exists("Secret", secret["name"]):
                yield f"{name_of(pod)}: there is no Secret {secret['name']}"
    for doc in world.docs:
        for spec in cluster_specs(doc):
            secret = (spec.get("authOptions") or {}).get("secretName")
            if secret:
                yield from _missing(
                    world, "Secret", secret, ["auth_token"], False, f"{name_of(doc)}: authOptions"
                )


def cluster_specs(doc: Doc) -> list[Doc]:
    """Return the RayClusterSpecs in a document, or [] if the document has none."""
    spec = doc.get("spec") or {}
    if doc["kind"] == "RayCluster":
        return [spec]
    if doc["kind"] in ("RayJob", "RayCronJob", "RayService"):
        inner = spec.get("jobTemplate", spec)
        return [inner[key] for key in ("rayClusterSpec", "rayClusterConfig") if inner.get(key)]
    return []


def variables(world: World) -> Iterator[str]:
    """Yield a message for each environment variable that a container uses but nothing sets.

    A variable may be set by the container, the container's command, the operator or the image.
    """
    for pod in world.pods:
        for container in containers(pod):
            text = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
            text += "".join(str(entry.get("value", "")) for entry in container.get("env") or ())
            have = (
                {entry["name"] for entry in container.get("env") or ()}
                | OPERATOR_ENV
                | set(re.findall(r"\b(\w+)=", text))
            )
            for name in sorted(set(re.findall(r"\$[({]?([A-Z][A-Z0-9_]+)", text)) - have):
                yield f"{name_of(pod)}: {container['name']} uses ${name}, which nothing sets"


def paths(world: World) -> Iterator[str]:
    """Yield a message for each missing file, script or module that a command uses.

    Files below /etc/awares must be mounted. Scripts and modules must be in the repository.
    """
    for doc in of_kind(world.docs, "RayJob", "RayCronJob"):
        spec = doc["spec"].get("jobTemplate", doc["spec"])
        for pod in _runners(world, doc, spec):
            yield from _files(world, pod, pod["spec"]["containers"][0], spec["entrypoint"])
    for pod in world.pods:
        for container in containers(pod):
            yield from _files(
                world,
                pod,
                container,
                " ".join([*(container.get("command") or ()), *(container.get("args") or ())]),
            )


def _runners(world: World, doc: Doc, spec: Doc) -> list[Doc]:
    """Return the head pods of the job's cluster, because the head runs the job's entrypoint."""
    own = f"{doc['kind'].lower()}-{doc['metadata']['name']}-head"
    shared = f"raycluster-{(spec.get('clusterSelector') or {}).get('ray.io/cluster')}-head"
    return [pod for pod in world.pods if pod["metadata"]["name"] in (own, shared)]


def _files(world: World, pod: Doc, container: Doc, command: str) -> Iterator[str]:
    where = f"{name_of(pod)}: {container['name']}"
    for path in sorted(set(re.findall(r"/etc/awares/[\w./-]+", command))):
        if not _is_mounted(world, pod, container, path):
            yield f"{where}: {path} is in no volume that it mounts"
    for script in re.findall(r"python3? ([\w./-]+\.py)\b", command):
        if not (ROOT / script.removeprefix("/opt/awares/")).exists():
            yield f"{where}: runs {script}, which is not in the repository"
    for module in re.findall(r"-m (awares[\w.]*)", command):
        base = ROOT / "platform" / Path(*module.split("."))
        if not base.with_suffix(".py").exists() and not (base / "__main__.py").exists():
            yield f"{where}: runs the module {module}, which is not in the repository"


def _is_mounted(world: World, pod: Doc, container: Doc, path: str) -> bool:
    volumes_ = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        below = path.removeprefix(mount["mountPath"].rstrip("/") + "/")
        source = volumes_.get(mount["name"], {}).get("configMap")
        if source and (path == mount["mountPath"] and mount.get("subPath") or below != path):
            return (mount.get("subPath") or below) in (
                world.keys("ConfigMap", source["name"]) or ()
            )
    return False
