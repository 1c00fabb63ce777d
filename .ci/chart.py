"""Generates three files of a Helm chart from its values and from the project's settings.

    values.yaml        defaults, `# --` and `# @schema` lines -+           +- README.md
    schema.types.yaml  types that no default shows ------------+- files() -+- values.schema.json
    PlatformConfig     sections, keys, defaults of a setup ----+           +- setup.defaults.json

`.venv/bin/python .ci/chart.py helm/awares-train` writes the files on the right.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from marked import filled

from awares_platform.config import PlatformConfig

NAMED = {"groupDefaults": "group", "jobDefaults": "job"}
"""Maps a key of values.yaml to the name of the key's schema under $defs."""
SETTINGS = {
    "run": ("name",),
    "engine": ("threads", "tensor_parallel"),
    "curate": ("engines", "engine_cpus", "engine_gpus"),
    "sft": ("workers", "threads", "use_gpu"),
    "grpo": (
        *("rollout_actors", "rollout_cpus", "rollout_gpus"),
        *("learner_workers", "learner_cpus", "learner_gpus"),
        *("reward_workers", "reward_cpus"),
    ),
    "evaluate": ("engine_cpus", "engine_gpus"),
    "serve": ("policy", "follow", "replica_cpus", "replica_gpus", "shutdown_timeout_s"),
}
"""The keys of a setup that the chart's templates read with `awares.setting`, by section.

If a user sets no value for such a key, the templates take its default from setup.defaults.json.
"""
SHORT = 60
_KINDS = {bool: "boolean", str: "string", int: "integer", float: "number"}


@dataclass(frozen=True, slots=True)
class Value:
    """One key of values.yaml, with its default, its help text and its annotated schema.

    Example:
        Value("store.bucket", "", "S3 bucket of all state.", {"type": "string"}, ())
    """

    path: str
    """The key's dotted path from the top of the file."""
    default: Any
    help: str
    """The text after `# --`, or "" without this text."""
    schema: dict[str, Any] | None
    """The schema in the key's `@schema` comment, or None without this comment."""
    below: tuple["Value", ...]
    """The keys below this key, if its default is a map in block style. Otherwise empty."""


def files(chart: Path) -> dict[Path, str]:
    """Return the text of each generated file, by its path. `chart` is the chart's directory."""
    values = read_values((chart / "values.yaml").read_text("utf-8"))
    types = yaml.safe_load((chart / "schema.types.yaml").read_text("utf-8"))
    return {
        chart / "values.schema.json": json.dumps(schema(values, types), indent=1) + "\n",
        chart / "README.md": filled(chart / "README.md", "values", table(values)),
        chart / "setup.defaults.json": json.dumps(setup_defaults(), indent=1) + "\n",
    }


def read_values(text: str) -> tuple[Value, ...]:
    """Parse the text of a values.yaml into its keys. The comments above a key describe the key."""
    lines = text.splitlines()
    return tuple(_read(yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text), lines, ""))


def _read(node: Any, data: dict[str, Any], lines: list[str], prefix: str) -> Iterator[Value]:
    for key_node, value_node in node.value:
        key = key_node.value
        help_text, annotation = _comments(lines, key_node.start_mark.line)
        block = isinstance(value_node, yaml.MappingNode) and not value_node.flow_style
        below = tuple(_read(value_node, data[key], lines, f"{prefix}{key}.")) if block else ()
        yield Value(f"{prefix}{key}", data[key], help_text, annotation, below)


def _comments(lines: list[str], line: int) -> tuple[str, dict[str, Any] | None]:
    """Return the help text and the `@schema` annotation in the comments right above `line`.

    Without a help text the first value is "". Without an annotation the second value is None.
    """
    above: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].lstrip().removeprefix("#").strip())
    annotation = next(
        (
            yaml.safe_load(text.removeprefix("@schema"))
            for text in above
            if text.startswith("@schema")
        ),
        None,
    )
    words = [text for text in above if not text.startswith("@schema")]
    begin = next((index for index, text in enumerate(words) if text.startswith("-- ")), None)
    return "" if begin is None else " ".join(words[begin:]).removeprefix("-- "), annotation


def schema(values: tuple[Value, ...], types: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of all values.

    The schema refuses unknown keys, except where `types`, an `@schema` comment or PlatformConfig
    allows them.
    """
    definitions = dict(types) | setup_definitions()
    properties: dict[str, Any] = {}
    for value in values:
        properties[value.path] = _schema(value, types)
        if name := NAMED.get(value.path):
            definitions[name] = _partial(properties[value.path])
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of awares-train",
        "type": "object",
        "additionalProperties": False,
        "required": [value.path for value in values],
        "properties": properties,
        "$defs": definitions,
    }


def _schema(value: Value, types: dict[str, Any]) -> dict[str, Any]:
    """Return the annotated schema of a value, or a schema for the type of its default.

    A key that must not be null is required, because Helm removes a key that a user sets to null.
    """
    said = {"description": value.help} if value.help else {}
    if value.schema is not None:
        return said | value.schema
    if isinstance(value.default, dict):
        below = value.below or tuple(
            Value(key, default, "", None, ()) for key, default in value.default.items()
        )
        properties = {_key(item): _schema(item, types) for item in below}
        required = [_key(item) for item in below if not _takes_null(properties[_key(item)], types)]
        return {
            **said,
            "type": "object",
            "additionalProperties": False,
            "required": required,
            "properties": properties,
        }
    kind = _KINDS.get(type(value.default))
    if kind is None:
        raise ValueError(
            f"values.yaml: {value.path} = {value.default!r} does not show its type: "
            "add a line `# @schema {...}` above it"
        )
    return said | {"type": kind}


def _key(value: Value) -> str:
    return value.path.rpartition(".")[2]


def _takes_null(schema: dict[str, Any], types: dict[str, Any]) -> bool:
    named = types.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    return "null" in named.get("type", ())


def _partial(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with all keys optional, because a user need not repeat the defaults."""
    below = {key: _partial(item) for key, item in schema.get("properties", {}).items()}
    return {key: item for key, item in schema.items() if key != "required"} | (
        {"properties": below} if below else {}
    )


def setup_definitions() -> dict[str, Any]:
    """Return the schemas of PlatformConfig and its sections, by class name.

    The schemas also accept the word "none" for an optional value. A map must be empty if
    PlatformConfig declares neither its keys nor the type of its values.
    """
    whole = PlatformConfig.model_json_schema()
    sections = whole.pop("$defs")
    return {
        name: _plain(section) for name, section in {**sections, "PlatformConfig": whole}.items()
    }


def setup_defaults() -> dict[str, dict[str, Any]]:
    """Return the default of each key in SETTINGS, by section and key."""
    defaults = PlatformConfig().model_dump(mode="json")
    return {name: {key: defaults[name][key] for key in keys} for name, keys in SETTINGS.items()}


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node and {"type": "null"} in node["anyOf"]:
        node = {**node, "anyOf": [*node["anyOf"], {"const": "none"}]}
    is_schema = any(
        isinstance(node.get(key), str | list) for key in ("$ref", "anyOf", "enum", "type")
    )
    plain = {
        key: _plain(item)
        for key, item in node.items()
        if not (is_schema and key in ("default", "title"))
    }
    return plain | (
        {"additionalProperties": False} if plain.get("additionalProperties") is True else {}
    )


def table(values: tuple[Value, ...]) -> str:
    """Return a Markdown table of the values that have a help text."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for value in _all(values):
        if value.help:
            rows.append(f"| `{value.path}` | {_default(value)} | {_cell(value.help)} |")
    return "\n".join(rows)


def _all(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        yield value
        yield from _all(value.below)


def _default(value: Value) -> str:
    text = json.dumps(value.default)
    return f"`{_cell(text)}`" if len(text) <= SHORT else "see values.yaml"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> None:
    """Write the generated files of the chart in the given directory."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "values.yaml").is_file():
        raise SystemExit(
            f"usage: python .ci/chart.py CHART; {arguments} names no directory with a values.yaml"
        )
    for path, text in files(Path(arguments[0])).items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
