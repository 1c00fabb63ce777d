"""Reads and writes the state of a quickstart, in progress.json in the directory of the run."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from awares.errors import ConfigError
from awares_platform.cli.cpu_time import measured


@dataclass(slots=True)
class QuickstartState:
    """The finished jobs of a quickstart, and the seconds that each job has taken.

    Example:
        path = Path("runs/quickstart/progress.json")
        cpu_s = {"curate": {"driver": 9.1, "engine": 50.2}}
        QuickstartState(path, "5f2a...", ["curate"], {"curate": 71.3}, cpu_s)
    """

    path: Path
    """Path of progress.json."""
    fingerprint: str
    """Digest of the setup."""
    finished: list[str] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each job, including interrupted attempts."""
    cpu_s: dict[str, dict[str, float]] = field(default_factory=dict)
    """CPU seconds of each job by kind of process (cpu_time.py), including interrupted attempts."""

    def save(self) -> None:
        """Write progress.json atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        body = {key: value for key, value in asdict(self).items() if key != "path"}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
        temporary.replace(self.path)

    @contextmanager
    def timed(self, job: str) -> Iterator[None]:
        """Add the block's time to that of `job`. If the block succeeds, mark `job` as finished."""
        started = time.monotonic()
        try:
            with measured(self.cpu_s.setdefault(job, {})):
                yield
            if job not in self.finished:
                self.finished.append(job)
        finally:
            self.wall_s[job] = round(self.wall_s.get(job, 0.0) + time.monotonic() - started, 1)
            self.save()


def read_state(path: Path) -> QuickstartState | None:
    """Return the state in progress.json, or None if there is no such file.

    Raises ConfigError if the file is damaged.
    """
    try:
        body = json.loads(path.read_text("utf-8"))
        return QuickstartState(
            path,
            body["fingerprint"],
            list(body["finished"]),
            dict(body["wall_s"]),
            dict(body.get("cpu_s", {})),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); begin the run again with --fresh"
        ) from None
