"""Defines what the controller may tell the learner to do instead of a step."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finish:
    """Tells the learner to end the run early, because validation finds no better version any more.

    None of the last grpo.validation.patience validated versions has become the best one.

    Example:
        Finish()
    """


@dataclass(frozen=True, slots=True)
class Leave:
    """Tells the learner to save a checkpoint and end. A later job continues the run.

    Example:
        Leave()
    """


@dataclass(frozen=True, slots=True)
class Restore:
    """Tells the learner to load the snapshot of `version`, and to go on from its weights.

    Example:
        Restore(version=21)
    """

    version: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """Names the version that becomes the policy "awares".

    If no version was validated, the last version becomes the policy.

    Example:
        Chosen(21, 20, {"validation/reward": 9.7})
    """

    version: int | None
    """The chosen version, or None if no version was validated."""
    step: int | None
    """The number of steps that led to the chosen version, or None."""
    figures: dict[str, float]
    """The version's validation metrics."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """Says which version the learner will restore. `version` is None if it will restore none.

    `times` is the number of restorations in the run, including this one.

    Example:
        Restoration(version=21, times=1)
    """

    version: int | None
    times: int
