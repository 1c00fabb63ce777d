"""The section [grpo.guards]: bounds on a run's metrics, and what happens outside them."""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from awares_platform.config.base import Section

Action = Literal["off", "warn", "stop"]
"""What happens when a metric leaves its bounds: nothing, a line on the console, or an error."""


class GuardsConfig(Section):
    """Bounds on the means of a run's metrics.

    A guard compares the mean over the last `window` steps with its bounds. Its action is "off",
    "warn" or "stop".
    """

    window: PositiveInt = 10
    """Number of newest steps over which each guard takes the mean of its metric."""
    kl: Action = "warn"
    """Action if the mean of policy/kl exceeds `kl_above`."""
    kl_above: PositiveFloat = 2.0
    """Largest mean KL divergence from the starting policy, in nats per token."""
    call_rate: Action = "warn"
    """Action if nearly no episode, or nearly every episode, asks for a crop. A method with one
    turn has no such guard."""
    call_rate_below: float = Field(default=0.005, ge=0, le=1)
    """Smallest mean share of episodes that ask for a crop."""
    call_rate_above: float = Field(default=0.995, ge=0, le=1)
    """Largest mean share of episodes that ask for a crop."""
    malformed: Action = "warn"
    """Action if the mean of call/malformed exceeds `malformed_above`."""
    malformed_above: float = Field(default=0.2, ge=0, le=1)
    """Largest mean share of episodes that end with a malformed request."""
    uniform: Action = "warn"
    """Action if the mean of groups/uniform_share exceeds `uniform_above`."""
    uniform_above: float = Field(default=0.9, ge=0, le=1)
    """Largest mean share of groups whose rewards are all equal. Such a group teaches nothing."""
    entropy: Action = "warn"
    """Action if the mean of policy/surprise is below `entropy_below`. The mean negative logprob of
    sampled tokens estimates the policy's entropy."""
    entropy_below: float = Field(default=0.001, ge=0)
    """Smallest mean surprise of a sampled token, in nats."""
    disk_free_gib: Action = "warn"
    """Action if the file system of run.directory has less free space than `disk_free_gib_below`.
    This guard looks at the present value, not at a mean."""
    disk_free_gib_below: float = Field(default=2.0, ge=0)
    """Smallest free space of the file system of run.directory, in GiB."""

    @model_validator(mode="after")
    def _the_call_rate_has_room(self) -> Self:
        if self.call_rate_below >= self.call_rate_above:
            raise ValueError(
                f"grpo.guards.call_rate_below={self.call_rate_below:g} must be less than "
                f"grpo.guards.call_rate_above={self.call_rate_above:g}"
            )
        return self
