"""[grpo]: rollouts, the learner and the queue between them.

A default is the paper's value if it states one, and else the value of the mini setup.
"""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from awares_platform.config.base import Section


class GrpoConfig(Section):
    """Group relative policy optimisation, asynchronous."""

    start: Literal["base", "sft"] = "sft"
    """Policy that training starts from. It is also the frozen reference of the KL term."""
    steps: PositiveInt = 120
    """Learner steps. Each consumes one batch and publishes one version."""
    groups_per_step: PositiveInt = 32
    """Prompts in a batch."""
    group_size: int = Field(default=8, ge=2)
    """Episodes per prompt (G)."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature. The learner scores episodes at the same temperature. top_p is 1."""
    max_tokens: PositiveInt = 32
    """Sampled tokens per turn."""

    staleness_bound: int = Field(default=2, ge=0)
    """Largest staleness of a training episode: the number of versions between the weights that
    sampled its oldest token and the weights it updates. 0 makes training synchronous."""
    drop_uniform_groups: bool = False
    """Leave out groups whose rewards are all equal, and sample other prompts in their place."""
    errors: Literal["exclude", "penalise"] = "exclude"
    """What happens to an episode that fails because of the engine or an image: "exclude" leaves it
    out of its group, "penalise" gives it `error_reward`."""
    error_reward: float = -2.0
    """Reward of a failed episode if `errors` is "penalise"."""

    rollout_actors: PositiveInt = 1
    """Rollout actors; each holds one engine."""
    groups_in_flight: PositiveInt = 16
    """Groups that one actor rolls out at once."""
    rollout_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for an actor."""
    rollout_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for an actor."""
    rollout_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that actors may run on, such as {"awares/group" = "rollout"}. Without
    labels they run on any node."""
    actor_restarts: int = Field(default=20, ge=0)
    """Restarts of rollout actors, summed over all actors, before the run fails."""
    poll_s: PositiveFloat = 0.25
    """Seconds between two polls of the weight bus by an actor."""

    learner_workers: PositiveInt = 1
    """Data-parallel learner ranks."""
    learner_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for a rank."""
    learner_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for a rank."""
    learner_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that ranks may run on. Without labels they run on any node."""
    learner_threads: PositiveInt = 1
    """Torch threads of a rank."""
    learner_restarts: int = Field(default=3, ge=0)
    """Restarts of the learner from its last checkpoint before the run fails."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    micro_batch: PositiveInt = 32
    """Distinct sequences per forward and backward pass of a rank. Episodes with equal tokens share
    a sequence."""
    minibatches: PositiveInt = 1
    """Optimizer steps per batch. With 1 the proximal policy equals the current one, and the clip
    has no effect."""

    learning_rate: PositiveFloat = 1e-4
    """Learning rate of AdamW. It decays linearly to zero over `steps`. The paper uses 1e-5 in its
    text and 5e-5 in its supplement."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""
    kl_beta: float = Field(default=0.05, ge=0)
    """Weight of the KL divergence from the starting policy. With 0 the forward pass of the
    reference is skipped."""
    clip: PositiveFloat = 0.2
    """Clip of the ratio between current and proximal policy."""
    importance_cap: PositiveFloat = 2.0
    """Upper bound of the importance weight between proximal and behaviour policy."""
    std_eps: PositiveFloat = 1e-4
    """Constant that is added to a group's standard deviation."""

    anchor_every: PositiveInt = 16
    """Every so many versions the weights are published whole, not as a delta. They are published
    whole earlier if the deltas together exceed the whole weights, or if a reader finds damage."""
    keep_versions: PositiveInt = 4
    """Newest weight versions that stay in the store, with the versions that their deltas need."""
    checkpoint_every: PositiveInt = 10
    """Steps between learner checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints that stay in the store."""
    batch_timeout_s: PositiveFloat = 900.0
    """Seconds that the learner waits for a batch before the run fails."""

    @model_validator(mode="after")
    def _episodes_divide_over_minibatches(self) -> Self:
        """Refuse a batch that cannot be cut into minibatches and ranks."""
        if self.groups_per_step % self.minibatches:
            raise ValueError(
                f"grpo.groups_per_step={self.groups_per_step} must be a multiple of "
                f"grpo.minibatches={self.minibatches}"
            )
        episodes = self.groups_per_step * self.group_size
        if episodes < self.learner_workers:
            raise ValueError(
                f"grpo.learner_workers={self.learner_workers} exceeds the {episodes} episodes of a "
                "step; lower it or raise grpo.groups_per_step"
            )
        return self
