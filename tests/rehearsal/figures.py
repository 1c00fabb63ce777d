"""Computes the figures in the table from the records of the rehearsal.

`compact` reduces seen/<job>.json, with up to a megabyte of samples, to a few hundred numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tests.rehearsal.memory import ProcessMemory

METRICS = ("time/wait", "time/learn", "time/publish", "time/load", "time/step", "time/images")
METRICS += ("weights/bytes", "weights/share", "call/rate")
"""The metrics that the table needs."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass of a trainer, as the probe recorded it.

    Example:
        Pass(
            rows=2, width=1290, tokens=2025, patches=6240, scored=21, gradient=True, layers=2
        )
    """

    rows: int
    """The number of sequences in the batch."""
    width: int
    """The padded length of the sequences."""
    tokens: int
    """The number of tokens without padding."""
    patches: int
    """The number of patches of the images."""
    scored: int
    """The number of positions that the head scores."""
    gradient: bool
    """Whether the pass computes gradients."""
    layers: int
    """The number of runs of the first decoder layer, including recomputations."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one job.

    Example:
        Figures(164.0, engine=6_750_000_000, trainer=None, passes=[], metrics=[], replies=0)
    """

    seconds: float
    """The duration of the job."""
    engine: int | None
    """The engine's peak memory in bytes, or None if the job has no engine."""
    trainer: int | None
    """The trainer's peak memory in bytes, or None if the job has no trainer."""
    passes: list[Pass]
    metrics: list[dict[str, float]]
    """The values of METRICS for each step."""
    replies: int
    """The number of questions that the served policy answered."""


def compact(report: dict[str, Any]) -> Figures:
    """Return the figures of a job, computed from the report that run.py wrote."""
    events = report["events"]
    # A job trains if it has passes with gradients. `awares evaluate` has only passes without
    # gradients, which check its engine.
    trains = any(event["event"] == "pass" and event["gradient"] for event in events)
    metrics = [{name: line[name] for name in METRICS if name in line} for line in report["metrics"]]
    return Figures(
        seconds=round(report["seconds"], 1),
        engine=engine_peak(report),
        trainer=trainer_peak(report) if trains else None,
        passes=passes(events) if trains else [],
        metrics=[line for line in metrics if line],
        replies=len(report["replies"]),
    )


def to_json(figures: Figures) -> dict[str, Any]:
    """Return the figures as JSON values. A pass is the list of its fields."""
    return {**asdict(figures), "passes": [[*asdict(one).values()] for one in figures.passes]}


def from_json(values: dict[str, Any]) -> Figures:
    """Invert `to_json`."""
    return Figures(**{**values, "passes": [Pass(*fields) for fields in values["passes"]]})


def passes(events: Sequence[dict[str, Any]]) -> list[Pass]:
    """Return the passes that a trainer's events describe. A pass ends where the next one begins."""
    starts = [place for place, event in enumerate(events) if event["event"] == "pass"]
    found = []
    for start, end in pairwise([*starts, len(events)]):
        first, rest = events[start], events[start + 1 : end]
        scored = [event["scored"] for event in rest if event["event"] == "head"]
        layers = sum(event["event"] == "layer" for event in rest)
        sizes = (first["rows"], first["width"], first["tokens"], first["patches"])
        found.append(Pass(*sizes, max(scored, default=0), first["gradient"], layers))
    return found


def trainer_peak(report: dict[str, Any]) -> int:
    """Return a trainer's peak memory in bytes: its weights, and the largest increase in a pass.

    Libraries, the tokenizer and cached images do not count, because a GPU would hold none of them.
    """
    events = [event for event in report["events"] if event["event"] != "engine"]
    first = {event["event"]: event for event in reversed(events)}
    process = ProcessMemory(**report["processes"][str(first["pass"]["pid"])])
    # Memory samples leave out the weights that the process maps from files.
    weights = first["loaded"]["memory"] - first["load"]["memory"] + first["loaded"]["mapped"]
    starts = [event for event in events if event["event"] == "pass"]
    ends = [event["time"] for event in (*starts[1:], events[-1])]
    added = [
        process.peak(start["time"], end) - start["memory"]
        for start, end in zip(starts, ends, strict=True)
    ]
    return weights + max(added)


def engine_peak(report: dict[str, Any]) -> int | None:
    """Return the largest peak memory of a job's engines in bytes, or None without an engine.

    The memory that an engine uses before it loads its model does not count.
    """
    starts = [event for event in report["events"] if event["event"] == "engine"]
    peaks = [
        ProcessMemory(**report["processes"][str(event["pid"])]).peak() - event["memory"]
        for event in starts
    ]
    return max(peaks, default=None)
