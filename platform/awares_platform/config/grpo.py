"""Section [grpo]: rollouts, learner and the queue between them. Figures of the paper where it states one, else the mini setup's."""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from awares_platform.config.base import Section


class GrpoConfig(Section):
    """Group relative policy optimisation, asynchronous."""

    start: Literal["base", "sft"] = "sft"
    """Policy that training starts from; it is also the frozen KL reference."""
    steps: PositiveInt = 120
    """Learner steps, one batch and one published version each."""
    groups_per_step: PositiveInt = 32
    """Prompts in a batch."""
    group_size: int = Field(default=8, ge=2)
    """Episodes per prompt (G)."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature; the learner scores episodes under the same tempered distribution. top_p is always 1."""
    max_tokens: PositiveInt = 32
    """Sampled tokens per turn."""

    staleness_bound: int = Field(default=2, ge=0)
    """Learner versions by which the oldest token of an episode may be behind the version that it updates; 0 is synchronous."""
    drop_uniform_groups: bool = False
    """Leave out groups whose rewards do not differ (they carry no advantage) and sample other prompts for them."""
    errors: Literal["exclude", "penalise"] = "exclude"
    """Episodes that the engine or an image failed: left out of their group, or given `error_reward`."""
    error_reward: float = -2.0
    """Reward of a failed episode when `errors` is "penalise"."""

    rollout_actors: PositiveInt = 1
    """Engines that roll out."""
    groups_in_flight: PositiveInt = 16
    """Groups that one actor works on at once."""
    rollout_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for an actor."""
    rollout_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for an actor."""
    rollout_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that actors may run on, such as {"awares/group" = "rollout"}; empty takes any."""
    actor_restarts: int = Field(default=20, ge=0)
    """Restarts of dead rollout actors, in all, before the run gives up."""
    poll_s: PositiveFloat = 0.25
    """Seconds between an actor's looks at the weight bus."""

    learner_workers: PositiveInt = 1
    """Data-parallel learner ranks."""
    learner_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for a rank."""
    learner_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for a rank."""
    learner_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that ranks may run on; empty takes any."""
    learner_threads: PositiveInt = 1
    """Torch threads of a rank."""
    learner_restarts: int = Field(default=3, ge=0)
    """Restarts of the learner from its last checkpoint before the run gives up."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    micro_batch: PositiveInt = 32
    """Distinct sequences per forward and backward pass of a rank; episodes that sampled the same one share it."""
    minibatches: PositiveInt = 1
    """Optimizer steps per batch. With 1 the proximal policy is the current one and clipping never binds."""

    learning_rate: PositiveFloat = 1e-4
    """AdamW's rate, decayed linearly to zero over `steps` (paper: 1e-5 in its text, 5e-5 in its supplement)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient norm bound."""
    kl_beta: float = Field(default=0.05, ge=0)
    """Weight of the KL to the starting policy; 0 saves the reference pass."""
    clip: PositiveFloat = 0.2
    """Ratio clip between current and proximal policy."""
    importance_cap: PositiveFloat = 2.0
    """Truncation of the importance weight between proximal and behaviour policy."""
    std_eps: PositiveFloat = 1e-4
    """Added to a group's standard deviation."""

    anchor_every: PositiveInt = 16
    """Longest chain of weight deltas: at the latest after so many versions one is published whole. Earlier when joining by deltas would
    cost more, or when a reader found damage."""
    keep_versions: PositiveInt = 4
    """Newest weight versions that stay in the store, with what they are deltas to."""
    checkpoint_every: PositiveInt = 10
    """Steps between learner checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints kept in the store."""
    batch_timeout_s: PositiveFloat = 900.0
    """The learner gives up when no batch became ready for this long."""

    @model_validator(mode="after")
    def _episodes_divide_over_minibatches(self) -> Self:
        if self.groups_per_step % self.minibatches:
            raise ValueError(
                f"grpo.groups_per_step={self.groups_per_step} must be a multiple of grpo.minibatches={self.minibatches}"
            )
        if self.groups_per_step * self.group_size < self.learner_workers:
            raise ValueError(
                f"grpo.learner_workers={self.learner_workers} exceeds the {self.groups_per_step * self.group_size} episodes of a step; "
                "lower it or raise grpo.groups_per_step"
            )
        return self
