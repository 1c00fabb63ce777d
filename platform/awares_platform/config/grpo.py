"""The section [grpo]: rollouts, the learner and the queue between them.

The defaults are the values of the mini setup. jobs/configs/awares-7b.toml holds the paper's values.
"""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from awares.advantage import AdvantageScale
from awares_platform.config.base import Section
from awares_platform.config.guards import GuardsConfig
from awares_platform.config.loss_choice import loss_fault
from awares_platform.config.validation import ValidationConfig


class GrpoConfig(Section):
    """Settings of asynchronous group relative policy optimisation."""

    start: Literal["base", "sft"] = "sft"
    """Policy that training starts from. It is also the frozen reference of the KL term."""
    steps: PositiveInt = 120
    """Number of learner steps. Each step consumes one batch and publishes one version."""
    groups_per_step: PositiveInt = 32
    """Number of prompts in a batch."""
    group_size: int = Field(default=8, ge=2)
    """Number of episodes per prompt (G)."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature. The learner scores episodes at the same temperature. top_p is 1."""
    max_tokens: PositiveInt = 32
    """Maximum number of sampled tokens per turn."""

    staleness_bound: int = Field(default=2, ge=0)
    """Largest staleness of a training episode, in versions. Staleness counts the versions from the
    weights that sampled the oldest token to the weights that the episode updates. An episode is
    also too stale if it has a token of a version that a restarted learner has abandoned. 0 makes
    training synchronous."""
    drop_uniform_groups: bool = False
    """Leave out groups whose rewards are all equal, and sample other prompts in their place."""
    errors: Literal["exclude", "penalise"] = "exclude"
    """What happens to an episode that fails because of the engine or an image. "exclude" leaves the
    episode out of its group; "penalise" gives it `error_reward`."""
    error_reward: float = -2.0
    """Reward of a failed episode if `errors` is "penalise"."""

    rollout_actors: PositiveInt = 1
    """Largest number of rollout actors. Each actor holds one engine. An actor that has no node
    waits for one, so the number follows the nodes that the cluster offers. The number also follows
    the load if `rollout_actors_min` is smaller."""
    rollout_actors_min: int | None = Field(default=None, ge=0)
    """Number of rollout actors with a node below which the job says that it waits. "none" takes
    `rollout_actors`. With a smaller number, the run releases the actors that the learner does not
    need, and asks for them again when it needs them. It keeps this number of actors, and at least
    one. Until runs followed the load, this key only decided when the job says that it waits."""
    groups_in_flight: PositiveInt = 16
    """Number of groups that one actor rolls out at once."""
    rollout_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for each rollout actor."""
    rollout_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for each rollout actor."""
    rollout_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that rollout actors may run on, such as {"awares/group" = "rollout"}.
    Without labels the actors run on any node."""
    actor_restarts: int = Field(default=20, ge=0)
    """Number of restarts within an hour, summed over all rollout actors, before the run fails.
    Restarts of reward workers count separately, with the same limit."""
    reward_workers: int = Field(default=0, ge=0)
    """Number of processes that compute rewards. With 0, a thread of the controller computes them.
    `awares plan` states how many a setup needs."""
    reward_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for each reward worker. A worker computes in one thread."""
    reward_timeout_s: PositiveFloat = 300.0
    """Seconds after which a reward worker without an answer counts as lost. It has to compute the
    rewards of up to 16 groups in this time."""
    poll_s: PositiveFloat = 0.25
    """Seconds between two reads of HEAD by the controller, which tells the rollout actors of new
    weights. An actor that hears nothing reads HEAD itself after 60 times as long."""

    learner_workers: PositiveInt = 1
    """Number of data-parallel learner ranks."""
    learner_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for each learner rank."""
    learner_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for each learner rank."""
    learner_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that learner ranks may run on. Without labels the ranks run on any
    node."""
    learner_threads: PositiveInt = 1
    """Torch threads of each learner rank."""
    learner_restarts: int = Field(default=3, ge=0)
    """Number of learner restarts within an hour before the run fails. A restart resumes from the
    last checkpoint. Restarts of the processes that steer the job count separately, with the same
    limit."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    micro_batch: PositiveInt = 32
    """Largest number of distinct sequences per forward and backward pass of a rank. Episodes with
    equal tokens share a sequence."""
    micro_tokens: int | None = Field(default=None, ge=1)
    """Largest number of tokens per forward and backward pass of a rank, with padding. A longer
    sequence gets a pass of its own. "none" sets no limit."""
    minibatches: PositiveInt = 1
    """Optimizer steps per batch. With 1 and `proximal` "step", the proximal policy equals the
    current policy, and the clip has no effect."""

    learning_rate: PositiveFloat = 1e-4
    """Learning rate of AdamW. It decays linearly to zero over `steps`. The paper uses 1e-5 in its
    text and 5e-5 in its supplement."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest gradient norm. Larger gradients are scaled down to this norm."""
    max_skipped_steps: PositiveInt = 3
    """Number of optimizer steps in a row with gradients that are not finite before the run fails.
    Such a step changes no weights."""
    kl_beta: float = Field(default=0.05, ge=0)
    """Weight of the KL divergence from the starting policy. With 0 the learner skips the forward
    pass of the reference."""
    loss: Literal["grpo", "clip_higher", "dr_grpo", "dapo", "gspo", "cispo"] = "grpo"
    """Policy loss. "grpo" clips the ratio of each token and weighs episodes alike. "clip_higher"
    has a separate upper bound. "dr_grpo" divides the sum over tokens by a constant. "dapo" is
    "clip_higher" with all tokens weighed alike. "gspo" clips one ratio per episode. "cispo" bounds
    the ratio, and keeps the gradients of all tokens."""
    clip: float | None = Field(default=None, gt=0)
    """Clip range of the ratio, which is the probability under the current policy divided by that
    under the proximal policy. The ratio is clipped to [1 - clip, 1 + clip], or to [1 - clip, 1 +
    clip_high]. "none" takes 0.2, and 0.0003 for the loss "gspo". The loss "cispo" has no clip."""
    clip_high: float | None = Field(default=None, gt=0)
    """Upper part of the clip range for the losses "clip_higher", "dapo" and "gspo". "none" takes
    0.28, and 0.0004 for "gspo"."""
    ratio_cap: float | None = Field(default=None, ge=1)
    """Largest ratio for the loss "cispo". "none" takes 5."""
    loss_length: int | None = Field(default=None, ge=1)
    """Number of tokens by which the loss "dr_grpo" divides the sum over an episode. "none" takes
    `max_tokens`."""
    proximal: Literal["step", "behaviour"] = "step"
    """Policy from which a step may not move far. "step" is the policy at the start of the learner
    step (decoupled, as in AReaL). "behaviour" is the policy that sampled the token, as in PPO. All
    importance weights are then 1."""
    importance: Literal["token_truncate", "sequence_truncate", "sequence_mask"] = "token_truncate"
    """Rule for the importance weight, the probability ratio of proximal to behaviour policy.
    "token_truncate" cuts the ratio of each token to `importance_cap`. "sequence_truncate" does so
    for the product over an episode. "sequence_mask" makes a larger product 0."""
    importance_cap: PositiveFloat = 2.0
    """Upper bound of the importance weight."""
    advantage_scale: AdvantageScale = "group"
    """What divides an advantage: the standard deviation of its group's rewards, that of all rewards
    in the batch, or nothing ("none"). The loss "dr_grpo" takes only "none"."""
    std_eps: PositiveFloat = 1e-4
    """Constant that is added to the standard deviation before it divides an advantage."""

    anchor_every: PositiveInt = 16
    """Maximum number of versions from one anchor to the next. An anchor holds the whole weights;
    the other versions are deltas. An anchor comes earlier if the deltas together exceed the size of
    an anchor, or if a reader reports damage."""
    keep_versions: PositiveInt = 4
    """Number of newest weight versions that stay in the store. The versions that their deltas build
    on stay as well."""
    checkpoint_every: PositiveInt = 10
    """Number of learner steps between two checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints that stay in the store."""
    batch_timeout_s: PositiveFloat = 900.0
    """Seconds that the learner waits for a batch before the run fails. The time without any ready
    rollout actor or reward worker does not count. The job then waits for nodes and says so."""

    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    """Evaluation on held-out questions inside the run, and the choice of the best version."""
    guards: GuardsConfig = Field(default_factory=GuardsConfig)
    """Bounds on the run's metrics, and what happens outside them."""

    @model_validator(mode="after")
    def _the_fewest_actors_are_no_more_than_the_most(self) -> Self:
        if (self.rollout_actors_min or 0) > self.rollout_actors:
            raise ValueError(
                f"grpo.rollout_actors_min={self.rollout_actors_min} exceeds grpo.rollout_actors="
                f"{self.rollout_actors}; lower it or raise grpo.rollout_actors"
            )
        return self

    @model_validator(mode="after")
    def _episodes_divide_over_minibatches(self) -> Self:
        """Check that all minibatches are equally large, and that each rank has an episode."""
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

    @model_validator(mode="after")
    def _the_loss_uses_its_settings(self) -> Self:
        """Refuse settings that contradict the policy loss, or have no effect with it."""
        if fault := loss_fault(self):
            raise ValueError(fault)
        return self

    @property
    def scores_proximal(self) -> bool:
        """Whether the learner needs a forward pass of its own for the proximal policy."""
        return self.proximal == "step" and self.minibatches > 1
