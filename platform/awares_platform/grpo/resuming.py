"""Finds the step, the position and the lineage with which a restarted learner goes on."""

from awares_platform.grpo.group import Position
from awares_platform.grpo.lineage import Spans
from awares_platform.training import checkpoint


def resumed(saved: checkpoint.Saved | None) -> tuple[int, Position, Spans]:
    """Return the step, the position and the lineage with which a learner starts from `saved`."""
    if saved is None:
        return 0, Position(), ()
    # A checkpoint of an older release records no lineage. With the span (0, 0), all versions of
    # earlier learners count as abandoned, because the first published version is 1.
    spans = tuple((first, last) for first, last in saved.state.get("lineage", ((0, 0),)))
    return saved.step, Position(saved.state["watermark"], tuple(saved.state["beyond"])), spans
