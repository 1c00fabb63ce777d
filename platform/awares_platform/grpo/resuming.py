"""Converts a learner's position and lineage to the state in a checkpoint, and back."""

from dataclasses import asdict
from typing import Any

from awares_platform.grpo.group import Position
from awares_platform.grpo.lineage import Lineage, Spans
from awares_platform.training import checkpoint


def resumed(saved: checkpoint.Saved | None) -> tuple[int, Position, Spans]:
    """Return the step, the position and the lineage with which a learner starts from `saved`."""
    if saved is None:
        return 0, Position(), ()
    # A checkpoint of an older release records no lineage. With the span (0, 0), all versions of
    # earlier learners count as abandoned, because the first published version is 1.
    spans = tuple((first, last) for first, last in saved.state.get("lineage", ((0, 0),)))
    return saved.step, Position(saved.state["watermark"], tuple(saved.state["beyond"])), spans


def to_state(position: Position, version: int, lineage: Lineage) -> dict[str, Any]:
    """Return the state that a checkpoint or a snapshot of `version` stores beside the weights.

    `lineage` belongs to the learner that has published `version`.
    """
    return {**asdict(position), "lineage": lineage.until(version), "version": version}
