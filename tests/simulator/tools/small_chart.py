"""Writes a small chart from templates that a test gives as text."""

from collections.abc import Mapping
from pathlib import Path

import yaml


def write(directory: Path, values: str, templates: Mapping[str, str]) -> Path:
    """Write the chart `small` into `directory`, and return `directory`.

    `templates` maps the name of each template to its text.
    """
    (directory / "templates").mkdir(parents=True)
    (directory / "Chart.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v2", "name": "small", "version": "0.1.0"})
    )
    (directory / "values.yaml").write_text(values)
    for name, text in templates.items():
        (directory / "templates" / f"{name}.yaml").write_text(text)
    return directory
