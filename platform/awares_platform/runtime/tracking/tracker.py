"""Defines the data that a tracker receives, and the protocol that every tracker implements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class TrackedJob:
    """The facts about one job of a run that a tracker shows.

    Example:
        TrackedJob("mini", "grpo", Path("runs/mini/grpo"), "awares-train", {"run": {...}})
    """

    run: str
    job: str
    directory: Path
    """The job's local directory."""
    project: str
    """The name of the project in W&B, and of the experiment in MLflow."""
    settings: Mapping[str, Any]
    """The configuration as JSON values."""

    @property
    def name(self) -> str:
        """The name of the job in a tracker. A resumed job has the same name."""
        return f"{self.run}-{self.job}"

    def flat(self) -> dict[str, Any]:
        """Return the settings with dotted keys, such as "run.name". A list becomes a text."""
        return dict(_flat(self.settings, ""))


def _flat(settings: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, (bool, int, float, str))
            pairs.append((f"{prefix}{key}", value if plain else str(value)))
    return pairs


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One episode in a table of samples.

    Example:
        SampleRow(image, "which digit?", "7", "7", True, "0", 9.75, {"answer": 10.0, "cost": 0.25})
    """

    image: Image
    """The resized image, with frames around the received crops."""
    question: str
    truth: str
    answer: str | None
    """The answer, or None if the episode has none."""
    correct: bool
    crops: str
    """The names of the requested crops."""
    reward: float | None
    """The total reward, or None if it is unknown."""
    parts: Mapping[str, float]
    """The value of each part of the reward."""


class Tracker(Protocol):
    """Shows the values of one job. Every method may raise any exception.

    One thread calls all methods. It calls `start` first, and `close` last.
    """

    def start(self) -> None:
        """Begin the job's record in the tracker, or continue it if the job is resumed."""
        ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record finite values of a step. Each key has the form "area/name"."""
        ...

    def series(self, step: int, area: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Record values of several series. `values` maps each series to its values by name."""
        ...

    def samples(self, step: int, rows: Sequence[SampleRow]) -> None:
        """Record a table of samples."""
        ...

    def close(self) -> None:
        """Finish the job's record."""
        ...
