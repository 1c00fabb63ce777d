"""Tests that the chart's generated files match their sources.

Also tests that values.schema.json and PlatformConfig accept and refuse the same setups.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart
import jsonschema
import pytest
import yaml

from awares_platform.config import PlatformConfig

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "awares-train"
PRESETS = sorted((CHART / "presets").glob("*.yaml"))
SAMPLE = """\
# Not about anything.

# -- A name,
# in two lines.
name: ""
server:
  # -- Where | it listens.
  # @schema {type: integer, minimum: 1}
  port: 80
  labels: {a: b}
"""


def schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())


def over(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Merge `values` into `defaults` as Helm does: a null in `values` removes the key."""
    merged = {
        key: over(defaults.get(key) or {}, item) if isinstance(item, dict) else item
        for key, item in values.items()
    }
    return {
        key: item
        for key, item in {**defaults, **merged}.items()
        if item is not None or key not in values
    }


def faults(values: dict[str, Any]) -> list[str]:
    """Merge `values` into the chart's defaults, and return the errors that the schema finds."""
    validator = jsonschema.Draft7Validator(schema())
    whole = over(yaml.safe_load((CHART / "values.yaml").read_text()), values)
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(whole)
    ]


def setup_of(path: Path) -> dict[str, Any]:
    """Return the setup in a preset or in a TOML file, with the keys of the file that it extends.

    `serve.autoscaling` is left out, because the chart sets this key itself.
    """
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text())["setup"]
    sections = tomllib.loads(path.read_text())
    if base := sections.pop("extends", None):
        below = setup_of(path.with_name(f"{base}.toml"))
        sections = below | {name: below.get(name, {}) | sections[name] for name in sections}
    sections["serve"] = {
        key: value for key, value in sections.get("serve", {}).items() if key != "autoscaling"
    }
    return sections


@pytest.mark.parametrize("name", ["values.schema.json", "README.md", "setup.defaults.json"])
def test_the_generated_files_are_up_to_date(name: str) -> None:
    assert (CHART / name).read_text() == chart.files(CHART)[CHART / name], (
        "the file is out of date; run: .venv/bin/python .ci/chart.py helm/awares-train"
    )


def test_values_are_read_with_their_comments() -> None:
    name, server = chart.read_values(SAMPLE)
    assert (name.path, name.default, name.help, name.schema) == (
        "name",
        "",
        "A name, in two lines.",
        None,
    )
    assert [value.path for value in server.below] == ["server.port", "server.labels"]
    assert server.below[0].schema == {"type": "integer", "minimum": 1}


def test_the_schema_is_closed_and_typed_by_defaults() -> None:
    built = chart.schema(chart.read_values(SAMPLE), {"text": {"type": "string"}})
    assert built["additionalProperties"] is False
    assert built["properties"]["name"] == {"description": "A name, in two lines.", "type": "string"}
    server = built["properties"]["server"]
    assert (server["additionalProperties"], server["required"]) == (False, ["port", "labels"])
    assert server["properties"]["port"] == {
        "description": "Where | it listens.",
        "type": "integer",
        "minimum": 1,
    }
    assert server["properties"]["labels"]["properties"] == {"a": {"type": "string"}}
    assert built["$defs"]["text"] == {"type": "string"}


def test_a_key_with_a_default_is_required_unless_it_allows_null() -> None:
    text = (
        'group:\n  # @schema {type: [string, "null"]}\n  zone: a\n'
        '  # @schema {$ref: "#/$defs/size"}\n  size: 1\n  name: x\n'
    )
    types = {"size": {"type": ["integer", "null"]}}
    assert chart.schema(chart.read_values(text), types)["properties"]["group"]["required"] == [
        "name"
    ]


def test_groups_and_jobs_may_omit_keys_with_defaults() -> None:
    built = schema()
    assert "enabled" in built["properties"]["groupDefaults"]["required"]
    assert "required" not in json.dumps([built["$defs"][name] for name in chart.NAMED.values()])


def test_the_table_has_one_row_for_each_described_value() -> None:
    assert chart.table(chart.read_values(SAMPLE)).splitlines()[2:] == [
        '| `name` | `""` | A name, in two lines. |',
        "| `server.port` | `80` | Where \\| it listens. |",
    ]


def test_a_default_without_a_clear_type_needs_an_annotation() -> None:
    with pytest.raises(ValueError, match="values.yaml: items = \\[\\] does not show its type"):
        chart.schema(chart.read_values("items: []\n"), {})


def test_every_value_is_described() -> None:
    """Check that every value of values.yaml has a comment, or is below a key with a comment.

    The comments of `groupDefaults` and `jobDefaults` also describe the values of each group and
    each job.
    """
    entries = ("cluster.groups.", "endpoint.groups.", "jobs.")

    def leaves(values: tuple[chart.Value, ...]) -> Iterator[chart.Value]:
        for value in values:
            if value.help or value.path.startswith(entries):
                continue
            yield from leaves(value.below) if value.below else (value,)

    assert [
        value.path for value in leaves(chart.read_values((CHART / "values.yaml").read_text()))
    ] == []


def test_only_labels_annotations_global_and_kubernetes_types_are_open() -> None:
    """Check that only a few objects of the schema accept unknown keys.

    `$defs.objects` and `$defs.map` stand for Kubernetes types, whose keys the API server checks.
    """

    def open_maps(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, list):
            for item in node:
                yield from open_maps(item, path)
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties", True) is True:
                yield path
            for key, item in node.items():
                yield from open_maps(item, f"{path}.{key}".lstrip("."))

    assert list(open_maps(schema(), "")) == [
        "properties.global",
        "$defs.objects.items",
        "$defs.map",
    ]


def test_defaults_and_presets_fit_the_schema() -> None:
    assert faults({}) == []
    assert len(PRESETS) == 4
    assert [
        f"{path.name}: {fault}"
        for path in PRESETS
        for fault in faults(yaml.safe_load(path.read_text()))
    ] == []


@pytest.mark.parametrize(
    "path",
    [*PRESETS, *sorted((ROOT / "jobs" / "configs").glob("*.toml"))],
    ids=lambda path: path.name,
)
def test_setups_fit_both_the_schema_and_the_configuration(path: Path) -> None:
    setup = setup_of(path)
    assert faults({"setup": setup}) == []
    PlatformConfig.model_validate(setup)


@pytest.mark.parametrize(
    ("setup", "sentence"),
    [
        ({"grpo": {"lerning_rate": 1e-5}}, "'lerning_rate' was unexpected"),
        ({"grpoo": {}}, "'grpoo' was unexpected"),
        ({"grpo": {"steps": 0}}, "0 is less than or equal to the minimum of 0"),
        ({"grpo": {"steps": "many"}}, "'many' is not of type 'integer'"),
        ({"policy": {"dtype": "int8"}}, "'int8' is not one of ['float32', 'bfloat16']"),
        ({"engine": {"kv_cache_gib": "all"}}, "is not valid under any of the given schemas"),
        ({"curate": {"judge_endpoint": {"uri": "http://judge"}}}, "'uri' was unexpected"),
    ],
)
def test_schema_and_configuration_refuse_the_same_setups(
    setup: dict[str, Any], sentence: str
) -> None:
    assert sentence in "\n".join(faults({"setup": setup}))
    with pytest.raises(ValueError):
        PlatformConfig.model_validate(setup)


def test_optional_values_accept_the_word_none() -> None:
    assert (
        faults({"setup": {"engine": {"kv_cache_gib": "none"}, "serve": {"token_env": "none"}}})
        == []
    )


def test_the_command_wants_a_chart(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="names no directory with a values.yaml"):
        chart.main([str(tmp_path)])
