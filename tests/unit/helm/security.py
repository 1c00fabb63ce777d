"""Checks pods against the restricted Pod Security Standard, and against this chart's own rules."""

import re
from collections.abc import Iterator

from tests.unit.helm.pods import containers
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, name_of

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
UNITS = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "m": 1e-3,
    "": 1,
}


def faults(pod: Doc) -> list[str]:
    """Return one message for each rule that the pod breaks."""
    found = [f"{name_of(pod)}: {sentence}" for sentence in (*_pod(pod["spec"]), *_memory(pod))]
    for container in containers(pod):
        found += [
            f"{name_of(pod)}: {container['name']} {sentence}"
            for sentence in (*restricted(pod, container), *bounded(container))
        ]
    return found


def _pod(spec: Doc) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"sets {key}"
    for volume in spec.get("volumes") or ():
        if not VOLUMES & volume.keys():
            yield f"volume {volume['name']} is of a kind that restricted namespaces refuse"
    if spec.get("enableServiceLinks") is not False:
        yield (
            "enableServiceLinks is not false: every Service of the namespace would be in its "
            "environment"
        )
    if spec.get("automountServiceAccountToken") is None:
        yield "automountServiceAccountToken is not said"


def restricted(pod: Doc, container: Doc) -> Iterator[str]:
    """Yield a message for each rule that the container's security context breaks.

    The container's security context overrides the pod's security context.
    """
    own = container.get("securityContext") or {}
    context = (pod["spec"].get("securityContext") or {}) | own
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "may run as root"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may gain privileges"
    if (context.get("capabilities") or {}).get("drop") != ["ALL"] or (
        context.get("capabilities") or {}
    ).get("add"):
        yield "keeps capabilities"
    if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "has no RuntimeDefault seccomp profile"
    if context.get("readOnlyRootFilesystem"):
        yield from _writable(pod, container)


def _writable(pod: Doc, container: Doc) -> Iterator[str]:
    """Yield a message for each directory that needs a volume but has none.

    Programs in the container write to $HOME and /tmp, but the root file system is read-only.
    """
    mounted = {mount["mountPath"] for mount in container.get("volumeMounts") or ()}
    home = {entry["value"] for entry in container.get("env") or () if entry["name"] == "HOME"}
    for path in sorted(({"/tmp"} | home) - mounted):
        yield f"has a read-only root and no volume at {path}"


def bounded(container: Doc) -> Iterator[str]:
    """Yield a message for each wrong or missing request or limit.

    A request for CPU or memory may not exceed its limit. A request for GPUs must equal its limit.
    """
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for resource in ("cpu", "memory"):
        if resource not in requests or resource not in limits:
            yield f"has no request or no limit of {resource}"
        elif amount(requests[resource]) > amount(limits[resource]):
            yield f"requests more {resource} than its limit"
    for resource in {key for key in (*requests, *limits) if "/" in key}:
        if requests.get(resource) != limits.get(resource):
            yield f"has different request and limit of {resource}"


def amount(text: str | float) -> float:
    """Convert a Kubernetes quantity to a number.

    Example:
        amount("1500m"), amount("2Gi")  # 1.5, 2147483648
    """
    found = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text))
    assert found and found[2] in UNITS, f"{text!r} is no quantity"
    return float(found[1]) * UNITS[found[2]]


def _memory(pod: Doc) -> Iterator[str]:
    """Yield a message for each memory-backed volume that may take all of the pod's memory.

    The size of such a volume counts against the containers' memory limit.
    """
    limit = sum(
        amount(((container.get("resources") or {}).get("limits") or {}).get("memory", 0))
        for container in pod["spec"]["containers"]
    )
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("emptyDir") or {}
        if source.get("medium") == "Memory" and amount(source.get("sizeLimit", limit)) >= limit:
            yield f"volume {volume['name']} may take all of the pod's memory"


def autoscaler_faults(doc: Doc) -> Iterator[str]:
    """Yield a message for each rule that the autoscaler's container breaks.

    The operator adds this container to the head, with settings from `autoscalerOptions`.
    """
    for spec in cluster_specs(doc):
        if spec.get("enableInTreeAutoscaling"):
            options = spec.get("autoscalerOptions") or {}
            container = {
                "name": "autoscaler",
                **{
                    key: options.get(key)
                    for key in ("securityContext", "resources", "volumeMounts")
                },
            }
            head = spec["headGroupSpec"]["template"]
            for sentence in (*restricted(head, container), *bounded(container)):
                yield f"{name_of(doc)}: autoscaler {sentence}"
