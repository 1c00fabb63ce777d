"""The section [grpo.validation]: how often a run is validated, and how it chooses its policy."""

from typing import Literal

from pydantic import Field

from awares_platform.config.base import Section


class ValidationConfig(Section):
    """Settings of the evaluation on held-out questions inside a GRPO run.

    A rollout actor answers the data.held_out questions with the weights of one version, while the
    learner goes on. The answers are greedy.
    """

    every: int = Field(default=40, ge=0)
    """Number of steps between two validated versions. The version of the start and the last
    version are validated, too. 0 validates nothing."""
    metric: Literal["reward", "accuracy"] = "reward"
    """Figure by which versions are compared: the reward of the run, or the score of
    evaluate.scorer."""
    patience: int | None = Field(default=None, ge=1)
    """Number of validated versions in a row without a new best one after which the run ends.
    "none" always takes all grpo.steps."""

    def due(self, step: int, steps: int) -> bool:
        """Return whether the version after `step` of `steps` steps must be validated."""
        return bool(self.every) and (step % self.every == 0 or step == steps)
