"""Holds the rules that KubeRay's operator has for the spec of a RayService."""

import re
from collections.abc import Collection, Iterator
from typing import Any

Spec = dict[str, Any]
TYPES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
DURATION = re.compile(r"[1-9]\d*|(?=.*[1-9])(\d+(\.\d+)?(ns|us|ms|s|m|h))+")


def _strategy(spec: Spec) -> Spec:
    return spec.get("upgradeStrategy") or {}


def _options(spec: Spec) -> Spec:
    return _strategy(spec).get("clusterUpgradeOptions") or {}


def _is_incremental(spec: Spec) -> bool:
    return _strategy(spec).get("type") == "NewClusterWithIncrementalUpgrade"


def head_service_has_no_name(spec: Spec, _: dict[str, str], __: Collection[str]) -> Iterator[str]:
    head = spec["rayClusterConfig"]["headGroupSpec"]
    if ((head.get("headService") or {}).get("metadata") or {}).get("name"):
        yield "headGroupSpec.headService.metadata.name must not be set"


def upgrade_type_is_known(spec: Spec, _: dict[str, str], __: Collection[str]) -> Iterator[str]:
    kind = _strategy(spec).get("type")
    if kind is not None and kind not in TYPES:
        yield f"upgradeStrategy.type is {kind}: it may be {', '.join(TYPES)}"


def incremental_upgrades_can_scale(
    spec: Spec, _: dict[str, str], gates: Collection[str]
) -> Iterator[str]:
    if not _is_incremental(spec):
        return
    if "RayServiceIncrementalUpgrade" not in gates:
        yield "incremental upgrade needs the feature gate RayServiceIncrementalUpgrade"
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "incremental upgrade needs enableInTreeAutoscaling"
    if not _options(spec):
        yield "incremental upgrade needs clusterUpgradeOptions"


def incremental_steps_fit(spec: Spec, _: dict[str, str], __: Collection[str]) -> Iterator[str]:
    options = _options(spec)
    if not _is_incremental(spec) or not options:
        return
    surge, step, interval = (
        options.get("maxSurgePercent", 100),
        options.get("stepSizePercent"),
        options.get("intervalSeconds"),
    )
    for name, percent in (("maxSurgePercent", surge), ("stepSizePercent", step)):
        if percent is None or not 0 <= percent <= 100:
            yield f"{name} is {percent}: it must be between 0 and 100"
    if step is not None and step > surge:
        yield f"stepSizePercent {step} is above maxSurgePercent {surge}"
    if interval is None or interval <= 0:
        yield f"intervalSeconds is {interval}: it must be positive"
    if not options.get("gatewayClassName"):
        yield "gatewayClassName is missing"


def initialising_timeout_is_a_duration(
    _: Spec, annotations: dict[str, str], __: Collection[str]
) -> Iterator[str]:
    text = annotations.get("ray.io/initializing-timeout")
    if text and not DURATION.fullmatch(text):
        yield (
            f"annotation ray.io/initializing-timeout is {text!r}: it must be a positive "
            "duration such as 30m, or seconds"
        )


RULES = (
    head_service_has_no_name,
    upgrade_type_is_known,
    incremental_upgrades_can_scale,
    incremental_steps_fit,
    initialising_timeout_is_a_duration,
)
