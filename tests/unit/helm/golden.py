"""Writes the rendered presets to golden files, so that a diff shows each change of the output.

The command `.venv/bin/python -m tests.unit.helm.golden` writes the files again.
"""

from hashlib import sha256
from pathlib import Path

import yaml

from tests.unit.helm.cases import CASES, PRESETS
from tests.unit.helm.render import Doc

FOLDER = Path(__file__).with_name("golden")
COMMAND = ".venv/bin/python -m tests.unit.helm.golden"


class _Dumper(yaml.CSafeDumper):
    """Writes texts of several lines as YAML blocks, so that a diff shows only changed lines."""


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Dumper.add_representer(str, _text)


def rendered(preset: str) -> str:
    """Return the preset's documents as YAML text.

    The text has no comments. A hash replaces the text of each dashboard.
    """
    case = next(case for case in CASES if case.preset == preset)
    return "---\n".join(_dump(_shortened(doc)) for doc in case.docs())


def _shortened(doc: Doc) -> Doc:
    if doc["kind"] != "ConfigMap":
        return doc
    hashed = {
        key: sha256(text.encode()).hexdigest() if key.endswith(".json") else text
        for key, text in doc["data"].items()
    }
    return doc | {"data": hashed}


def _dump(doc: Doc) -> str:
    return yaml.dump(
        doc, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=140, allow_unicode=True
    )


def main() -> None:
    """Write the golden files of all presets."""
    FOLDER.mkdir(exist_ok=True)
    for preset in PRESETS:
        (FOLDER / f"{preset}.yaml").write_text(rendered(preset))


if __name__ == "__main__":
    main()
