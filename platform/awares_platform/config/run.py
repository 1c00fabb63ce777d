"""The section [run]: the run's name, its seed, and its local output directory."""

import re
from pathlib import Path

from pydantic import Field, PositiveFloat, field_validator

from awares_platform.config.base import Section

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunConfig(Section):
    """Identity of a run. The run writes its objects under `runs/<name>/` in the store."""

    name: str = "mini"
    """Name of the run: letters, digits, '.', '_' and '-'."""

    seed: int = 0
    """Seed of the prompt order, the initialisation and the sampling. data.seed seeds the data."""

    directory: Path = Path("runs")
    """Local directory for metrics, reports and other readable output. A job writes to
    `<directory>/<name>/<job>/`."""

    hang_timeout_s: PositiveFloat = 90.0
    """Seconds without a sign of life after which a process of a job counts as hung. The job then
    kills the process and starts it again."""

    wait_s: float = Field(default=0.0, ge=0)
    """Seconds that sft, grpo and evaluate wait for the results of the jobs before them. A job that
    waits keeps its nodes. With 0, a job ends at once if its input is missing or stale."""

    worker_logs: bool = False
    """Print the output of Ray's workers. Ray's log files always contain this output."""

    @field_validator("name")
    @classmethod
    def name_is_a_path_component(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no run name: use letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        return name
