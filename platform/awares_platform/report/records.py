"""Reads the files of a run.

A missing file is no error. If a job has not run, the fields with this job's data stay empty.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from awares.crops import Box
from awares.errors import DataError
from awares_platform.evaluate.results import NAMES
from awares_platform.report.files import JOBS
from awares_platform.runtime.metrics import Row, read

DRAWN = ("awares", "sft")
"""Policies in order of preference. The report draws episodes of the first policy that has any."""


RECORDED = ("curate", "sft", "grpo", "evaluate")
"""The jobs that record metrics, in the order in which they run."""
_LATEST_FIRST = tuple(reversed(RECORDED))


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """One evaluated question: a row of episodes-<policy>.parquet. Boxes are in pixels of the image.

    Example:
        EpisodeRecord(
            sample_id="q3", image="9f2c...", size=(64, 64), question="digit?", truth="7",
            answer="7", correct=True, kind="digit", label="HR", crops=("0",),
            boxes=((0, 0, 32, 32),), evidence=(), visual_tokens=2, rtr_token=0.5, stop="answer",
            turns=("GET_CROPS: ['0']", "7"), reward=9.75,
        )
    """

    sample_id: str
    image: str
    """Content hash of the image."""
    size: tuple[int, int]
    """The image's (width, height) in pixels."""
    question: str
    truth: str
    """The reference answer."""
    answer: str | None
    """The policy's answer, or None."""
    correct: bool
    kind: str
    label: str | None
    crops: tuple[str, ...]
    """Names of the requested regions."""
    boxes: tuple[Box, ...]
    """Boxes of the requested regions."""
    evidence: tuple[Box, ...]
    """Annotated boxes that hold the evidence."""
    visual_tokens: int
    rtr_token: float
    stop: str
    """How the episode ended."""
    turns: tuple[str, ...] = ()
    """Text of each turn."""
    reward: float | None = None
    """Reward, or None if the question has no label."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All data of a run that the report shows.

    Example:
        RunRecord(
            name="mini", seed=0, config={"grpo": {...}}, dates=(1.7e9, 1.7e9 + 900),
            metrics={"grpo": (row,)}, policies={"awares": {...}}, labels={},
            episodes={"awares": (episode,)}, versions={"ray": "2.60.0"}, wall_s={"sft": 61.0},
            cpu_s={"sft": {"driver": 9.1, "learner": 70.2}},
        )
    """

    name: str
    seed: int
    config: dict[str, Any]
    """Configuration of the run's last job in `RECORDED`, or {} without such a job."""
    dates: tuple[float, ...]
    """Unix times of the first and the last recorded metrics, or () without metrics."""
    metrics: dict[str, tuple[Row, ...]]
    """Rows of metrics of each job."""
    policies: dict[str, dict[str, Any]]
    """Value of "policies" in evaluate/results.json."""
    labels: dict[str, Any]
    """Value of "labels" in evaluate/results.json."""
    episodes: dict[str, tuple[EpisodeRecord, ...]]
    """Recorded episodes of each policy."""
    versions: dict[str, str]
    """Version of each package."""
    wall_s: dict[str, float]
    """Wall-clock seconds of each job."""
    cpu_s: dict[str, dict[str, float]]
    """CPU seconds of each job by kind of process."""


def read_run(find: Callable[[str], Path], name: str, seed: int) -> RunRecord:
    """Read a run's files. `find` turns a path within the run into the path of the file.

    Raises DataError if a file is damaged. The error names the file.

    Example:
        read_run(Path("runs/mini").joinpath, "mini", seed=0)
    """
    results = _read_json(find("evaluate/results.json"))
    timing = _read_json(find("progress.json"))
    versions = (_read_json(find(f"{job}/versions.json")) for job in JOBS)
    configs = (_read_json(find(f"{job}/config.json")) for job in _LATEST_FIRST)
    recorded = {
        job: tuple(read(path))
        for job in RECORDED
        if (path := find(f"{job}/metrics.jsonl")).exists()
    }
    times = [row.time for rows in recorded.values() for row in rows]
    return RunRecord(
        name=name,
        seed=seed,
        config=next(filter(None, configs), {}),
        dates=(min(times), max(times)) if times else (),
        metrics=recorded,
        policies={
            key: results["policies"][key] for key in NAMES if key in results.get("policies", {})
        },
        labels=results.get("labels", {}),
        episodes={key: _read_episodes(find(f"evaluate/episodes-{key}.parquet")) for key in DRAWN},
        versions={str(key): str(value) for key, value in next(filter(None, versions), {}).items()},
        wall_s=timing.get("wall_s", {}),
        cpu_s=timing.get("cpu_s", {}),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON ({error}); run the job that writes it again"
        ) from error


def _read_episodes(path: Path) -> tuple[EpisodeRecord, ...]:
    if not path.exists():
        return ()
    try:
        return tuple(_episode(row) for row in parquet.read_table(path).to_pylist())
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); run evaluate again") from error


def _episode(row: dict[str, Any]) -> EpisodeRecord:
    return EpisodeRecord(
        sample_id=row["sample_id"],
        image=row["image"],
        size=(row["width"], row["height"]),
        question=row["question"],
        truth=row["truth"],
        answer=row["answer"],
        correct=bool(row["correct"]),
        kind=row["kind"] or "",
        label=row["label"],
        crops=tuple(row["crops"]),
        boxes=_boxes(row["boxes"]),
        evidence=_boxes(row["evidence"]),
        visual_tokens=row["visual_tokens"],
        rtr_token=row["rtr_token"],
        stop=row["stop"],
        turns=tuple(row["turns"]),
        # A file that an older version of this package wrote has no rewards.
        reward=row.get("reward"),
    )


def _boxes(rows: list[list[int]]) -> tuple[Box, ...]:
    return tuple((left, top, right, bottom) for left, top, right, bottom in rows)
