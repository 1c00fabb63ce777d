"""The run: its name, its seed, and its local output directory."""

import re
from pathlib import Path

from pydantic import field_validator

from awares_platform.config.base import Section

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunConfig(Section):
    """Identity of a run. It writes its objects under `runs/<name>/` in the store."""

    name: str = "mini"
    """Name of the run: letters, digits, '.', '_' and '-'."""

    seed: int = 0
    """Seed of all randomness but that of the data: prompts, initialisation and sampling."""

    directory: Path = Path("runs")
    """Local directory for output that people read: a job writes to `<directory>/<name>/<job>/`."""

    worker_logs: bool = False
    """Show the output of Ray's workers. Ray's log files have it in any case."""

    @field_validator("name")
    @classmethod
    def name_is_a_path_component(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no run name: use letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        return name
