"""The section [grpo.guards]: bounds on a run's metrics, and what happens outside them."""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from awares_platform.config.base import Section

Action = Literal["off", "warn", "stop"]
"""What happens when a metric leaves its bounds: nothing, a line on the console, or an error."""

PolicyAction = Literal["off", "warn", "stop", "restore-best"]
"""What happens when a metric of the policy leaves its bounds. "restore-best" warns, and lets the
learner go on from the best validated version."""


class GuardsConfig(Section):
    """Bounds on the means of a run's metrics.

    Each guard has an action: "off", "warn" or "stop". Some guards also have "restore-best", which
    lets the learner go on from the best validated version.
    """

    window: PositiveInt = 10
    """Number of newest steps over which each guard takes the mean of its metric."""
    kl: PolicyAction = "warn"
    """Action if the mean of policy/kl exceeds `kl_above`."""
    kl_above: PositiveFloat = 2.0
    """Largest mean KL divergence from the starting policy, in nats per token."""
    call_rate: PolicyAction = "warn"
    """Action if nearly no episode, or nearly every episode, asks for a crop. A method with one
    turn has no such guard."""
    call_rate_below: float = Field(default=0.005, ge=0, le=1)
    """Smallest mean share of episodes that ask for a crop."""
    call_rate_above: float = Field(default=0.995, ge=0, le=1)
    """Largest mean share of episodes that ask for a crop."""
    malformed: PolicyAction = "warn"
    """Action if the mean of call/malformed exceeds `malformed_above`."""
    malformed_above: float = Field(default=0.2, ge=0, le=1)
    """Largest mean share of episodes that end with a malformed request."""
    uniform: Action = "warn"
    """Action if the mean of groups/uniform_share exceeds `uniform_above`."""
    uniform_above: float = Field(default=0.9, ge=0, le=1)
    """Largest mean share of groups whose rewards are all equal. Such a group teaches nothing."""
    entropy: PolicyAction = "warn"
    """Action if the mean of policy/surprise is below `entropy_below`. The mean negative logprob of
    sampled tokens estimates the policy's entropy."""
    entropy_below: float = Field(default=0.001, ge=0)
    """Smallest mean surprise of a sampled token, in nats."""
    held_out: PolicyAction = "warn"
    """Action if the accuracy on held-out questions falls by more than `held_out_above`, while the
    reward of training rises. This guard looks at each validated version."""
    held_out_above: float = Field(default=0.05, ge=0, le=1)
    """Largest fall of the accuracy below that of an earlier version with a lower reward."""
    max_restores: PositiveInt = 2
    """Number of times that guards restore the best version of a run. At the next time, the run
    stops."""
    disk_free_gib: Action = "warn"
    """Action if the file system of run.directory has less free space than `disk_free_gib_below`.
    This guard looks at the present value, not at a mean."""
    disk_free_gib_below: float = Field(default=2.0, ge=0)
    """Smallest free space of the file system of run.directory, in GiB."""

    @property
    def restoring(self) -> list[str]:
        """The keys of the guards with the action "restore-best"."""
        return [key for key in type(self).model_fields if getattr(self, key) == "restore-best"]

    @model_validator(mode="after")
    def _the_call_rate_has_room(self) -> Self:
        if self.call_rate_below >= self.call_rate_above:
            raise ValueError(
                f"grpo.guards.call_rate_below={self.call_rate_below:g} must be less than "
                f"grpo.guards.call_rate_above={self.call_rate_above:g}"
            )
        return self
