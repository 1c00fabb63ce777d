"""Tests that the templates read the configuration's defaults only from setup.defaults.json."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import chart
import pytest
import yaml

from awares_platform.config import PlatformConfig
from tests.unit.helm.render import CHART, helm

TEMPLATES = [path for path in sorted((CHART / "templates").rglob("*")) if path.is_file()]
SECTIONS = sorted(PlatformConfig.model_fields)


def rendered(place: Path, setup: dict[str, Any]) -> str:
    """Return helm's output for the trial preset with `setup` and all jobs.

    If helm refuses the values, the output is the error message.
    """
    values = yaml.safe_load((CHART / "presets" / "trial.yaml").read_text("utf-8"))
    jobs = {name: {"enabled": True} for name in ("curate", "sft", "grpo", "evaluate")}
    done = helm(["template", "awares", str(place)], values=values | {"setup": setup, "jobs": jobs})
    return done.stdout + done.stderr


def with_default(tmp_path: Path, section: str, key: str, value: object) -> Path:
    """Copy the chart, make `value` the default of one setting, and return the copy's path."""
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    path = copy / "setup.defaults.json"
    defaults = json.loads(path.read_text("utf-8"))
    defaults[section][key] = value
    path.write_text(json.dumps(defaults), "utf-8")
    return copy


def test_no_template_repeats_a_default() -> None:
    """Check that no template contains a default for a setting.

    For example, a template must not contain `dig "grpo" "learner_workers" 1 .Values.setup`.
    """
    repeats = re.compile(rf'\bdig "({"|".join(SECTIONS)})" (?:"|\(printf)')
    assert [path.name for path in TEMPLATES if repeats.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("section", sorted(chart.SETTINGS))
def test_every_default_is_read(section: str) -> None:
    text = "\n".join(path.read_text("utf-8") for path in TEMPLATES)
    reads = re.findall(rf'"awares\.setting" \(list [.$\w]+ "{section}" (.*?)\)', text)
    patterns = [re.findall(r'"([a-z_%]+)"', read)[0].replace("%s", r"\w+") for read in reads]
    patterns += re.findall(rf'(?:number|cpus|gpus)"?:?\s+"?{section}\.(\w+)', text)
    unread = [
        key for key in chart.SETTINGS[section] if not any(re.fullmatch(p, key) for p in patterns)
    ]
    assert unread == []


@pytest.mark.parametrize(
    ("section", "key", "value", "shown"),
    [
        ("serve", "shutdown_timeout_s", 45.0, "terminationGracePeriodSeconds: 105"),
        ("engine", "threads", 3, '{name: OMP_NUM_THREADS, value: "3"}'),
        ("grpo", "rollout_actors", 90, "CPUs at once for setup.grpo"),
        ("sft", "workers", 90, "CPUs at once for setup.sft"),
        ("curate", "engines", 90, "CPUs at once for setup.curate"),
        ("evaluate", "engine_gpus", 1.0, "GPUs at once for setup.evaluate"),
        ("serve", "replica_cpus", 90.0, "CPUs at once for setup.serve"),
    ],
)
def test_a_changed_default_of_the_configuration_changes_the_rendered_chart(
    tmp_path: Path, section: str, key: str, value: object, shown: str
) -> None:
    assert shown not in rendered(CHART, {})
    assert shown in rendered(with_default(tmp_path, section, key, value), {})


def test_a_setting_overrides_its_default(tmp_path: Path) -> None:
    other = with_default(tmp_path, "engine", "threads", 3)
    assert '{name: OMP_NUM_THREADS, value: "2"}' in rendered(other, {"engine": {"threads": 2}})


def test_a_setting_without_a_generated_default_fails_with_the_remedy(tmp_path: Path) -> None:
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    (copy / "setup.defaults.json").write_text("{}", "utf-8")
    assert "add it to SETTINGS in .ci/chart.py" in rendered(copy, {})
