"""Tests that dashboards and alerts use existing metrics, and that every alert has a runbook."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from awares_platform.config.engine import EngineConfig
from tests.unit.helm.cases import CASES
from tests.unit.helm.render import CHART, NAMESPACE, ROOT, Doc, binary, of_kind

METRIC = re.compile(r"\bray_[a-z0-9_]+")
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


@lru_cache(maxsize=1)
def documents() -> tuple[Doc, ...]:
    return next(case for case in CASES if case.name == "monitoring").docs()


def dashboards() -> list[Doc]:
    maps = [
        doc
        for doc in of_kind(documents(), "ConfigMap")
        if doc["metadata"]["labels"].get("grafana_dashboard")
    ]
    return [json.loads(text) for doc in maps for text in doc["data"].values()]


def alerts() -> list[Doc]:
    return [
        rule
        for doc in of_kind(documents(), "PrometheusRule")
        for group in doc["spec"]["groups"]
        for rule in group["rules"]
    ]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield the place and the PromQL text of every expression in dashboards and alerts."""
    for board in dashboards():
        yield from (
            (f"{board['title']}: {panel['title']}", target["expr"])
            for panel in board["panels"]
            for target in panel.get("targets", ())
        )
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())


@lru_cache(maxsize=1)
def ours() -> frozenset[str]:
    """Return the Prometheus names of the platform's metrics.

    Jobs report a metric as "area/name". Other code uses the full name, which begins with "awares_".
    """
    text = "\n".join(
        path.read_text()
        for folder in ("awares", "platform")
        for path in (ROOT / folder).rglob("*.py")
    )
    reported = {
        f"ray_awares_{area}_{name}"
        for area, name in re.findall(r'"([a-z0-9_]+)/([A-Za-z0-9_]+)"', text)
    }
    # GRPO reports each part of a reward as the metric `reward/<name>`.
    for parts in re.findall(r"RewardValue\([^{]*\{([^}]*)\}", text):
        reported |= {f"ray_awares_reward_{name}" for name in re.findall(r'"(\w+)":', parts)}
    outright = set(re.findall(r'"(awares_[a-z0-9_]+)"', text))
    return frozenset(
        reported | {f"ray_{name}{suffix}" for name in outright for suffix in ("", "_total")}
    )


@lru_cache(maxsize=1)
def rays() -> str:
    """Return the source text of Ray's own dashboards, which contains the names of Ray's metrics."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    return "\n".join(path.read_text() for path in folder.glob("*.py"))


def is_known(metric: str) -> bool:
    base = HISTOGRAM.sub("", metric)
    return (
        metric in ours() or base in ours() if metric.startswith("ray_awares_") else metric in rays()
    )


def test_every_metric_exists() -> None:
    asked = {(where, metric) for where, text in expressions() for metric in METRIC.findall(text)}
    assert len(asked) > 30
    assert sorted((where, metric) for where, metric in asked if not is_known(metric)) == []
    assert not is_known("ray_awares_reward_maen") and not is_known("ray_node_gpu_utilisation")


def test_expressions_select_the_namespace() -> None:
    """Alerts use the release's namespace. In a dashboard, the reader chooses the namespace."""
    for where, text in expressions():
        assert f'namespace="{NAMESPACE}"' in text or 'namespace="$namespace"' in text, where
        assert all(text.count(left) == text.count(right) for left, right in ("()", "[]", "{}")), (
            where
        )


def test_every_alert_has_a_runbook_and_a_severity() -> None:
    assert len(alerts()) == len({rule["alert"] for rule in alerts()}) >= 5
    for rule in alerts():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert len(rule["annotations"]["runbook"]) > 80 and rule["annotations"]["summary"].endswith(
            "."
        ), rule["alert"]


COMMAND = re.compile(
    r"\b(?:(?:kubectl|helm) [a-z]+|ray [a-z]+ [a-z]+|awares weights [a-z]+|awares [a-z]+)"
)


def runbooks() -> str:
    return "\n".join(rule["annotations"]["runbook"] for rule in alerts())


def exists(command: str) -> bool:
    """Return whether the program knows the subcommand, and can print its help."""
    program, *words = command.split()
    is_ours = program in ("awares", "ray")
    path = Path(sys.executable).with_name(program) if is_ours else binary(program)
    return not subprocess.run([path, *words, "--help"], capture_output=True).returncode


def test_commands_in_runbooks_exist() -> None:
    commands = {*COMMAND.findall(runbooks())}
    assert {command.split()[0] for command in commands} == {"kubectl", "helm", "ray", "awares"}
    assert [command for command in sorted(commands) if not exists(command)] == []
    assert not exists("kubectl gett") and not exists("awares weights verfy")


def test_objects_in_runbooks_exist() -> None:
    """Check that `kubectl get` and `kubectl describe` name pods, or objects of the chart."""
    templates = "\n".join(path.read_text() for path in (CHART / "templates").glob("*.yaml"))
    kinds = {"pod", *(kind.lower() for kind in re.findall(r"^kind: (\w+)$", templates, re.M))}
    named = re.findall(r"\bkubectl (?:get|describe) ([a-z]+)", runbooks())
    assert named and {kind.removesuffix("s") for kind in named} <= kinds


def test_keys_in_runbooks_exist() -> None:
    """Check that runbooks name only settings and values of the chart that exist."""
    from awares_platform.config import PlatformConfig
    from awares_platform.config.setup import _keys

    known = {*_keys(PlatformConfig)} | {f"setup.{key}" for key in _keys(PlatformConfig)}
    sections = "|".join(PlatformConfig.model_fields)
    named = {*re.findall(rf"\b((?:setup\.)?(?:{sections})\.[a-z_]+)\b", runbooks())}
    assert named and sorted(named - known) == []
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    paths = {*re.findall(r"\bendpoint(?:\.\w+)+", runbooks())}
    assert paths and [path for path in paths if not has(values, path)] == []


def has(values: Any, path: str) -> bool:
    """Return whether the dotted `path` leads to a value."""
    for part in path.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


@pytest.mark.parametrize("board", [0, 1])
def test_dashboards_are_complete(board: int) -> None:
    dashboard = dashboards()[board]
    assert (
        dashboard["uid"]
        and dashboard["title"]
        and "namespace" in [one["name"] for one in dashboard["templating"]["list"]]
    )
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 5
    assert not overlaps([panel["gridPos"] for panel in dashboard["panels"]])
    for panel in dashboard["panels"]:
        assert panel["title"] and (
            panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
        )


def overlaps(places: list[dict[str, int]]) -> bool:
    """Return whether any two of the panels overlap on the dashboard's grid."""
    cells = [
        (x, y)
        for one in places
        for x in range(one["x"], one["x"] + one["w"])
        for y in range(one["y"], one["y"] + one["h"])
    ]
    return len(cells) != len(set(cells))


def test_overlapping_panels_would_be_seen() -> None:
    left, right = {"x": 0, "y": 0, "w": 12, "h": 8}, {"x": 12, "y": 0, "w": 12, "h": 8}
    assert not overlaps([left, right]) and overlaps([left, right | {"x": 11}])


def test_the_canary_alert_fires_before_the_run_stops() -> None:
    """Check that the threshold of the alert is below the default of `engine.canary_bound`.

    The run stops when the mean difference of the canary's logprobs exceeds `engine.canary_bound`.
    """
    [expression] = [rule["expr"] for rule in alerts() if rule["alert"] == "AwaresCanaryNearBound"]
    assert float(expression.rpartition(">")[2]) < EngineConfig().canary_bound
