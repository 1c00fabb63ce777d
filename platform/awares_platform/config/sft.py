"""The section [sft]: supervised fine-tuning on curated demonstrations (paper, section 3.3)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section


class SftConfig(Section):
    """Settings of SFT. The defaults suit AwaRes-Mini. The help texts name the paper's values."""

    epochs: int = Field(default=2, ge=1)
    """Number of passes over the curated samples. The paper uses 2."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate. The paper uses 1e-4 with LoRA."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps in which the learning rate rises linearly. It then falls to zero along a
    cosine."""
    weight_decay: float = Field(default=0.001, ge=0)
    """Weight decay of AdamW. Norms and biases are exempt."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Largest global gradient norm. Larger gradients are scaled down to it. 0 does not clip."""
    max_skipped_steps: int = Field(default=3, ge=1)
    """Number of optimizer steps in a row with gradients that are not finite before the run fails.
    Such a step changes no weights."""
    tool_turn_weight: float = Field(default=16.0, gt=0)
    """Loss weight w_t of the tokens of a crop request. Other assistant tokens have weight 1. The
    paper uses 5. A higher weight makes the policy ask more often. GRPO can teach the policy to ask
    less often, but it cannot teach requests that the policy never samples."""
    batch_size: int = Field(default=64, ge=1)
    """Samples per optimizer step over all workers. The paper uses 16 in its text and 128 in its
    appendix."""
    micro_batch: int = Field(default=32, ge=1)
    """Largest number of samples per worker and forward pass. `batch_size` must be a multiple of
    workers * micro_batch."""
    micro_tokens: int | None = Field(default=None, ge=1)
    """Largest number of tokens per worker and forward pass, with padding. A longer sample gets a
    pass of its own. "none" sets no limit."""
    workers: int = Field(default=1, ge=1)
    """Number of data-parallel trainer processes."""
    use_gpu: bool = False
    """Train with one GPU per worker and NCCL. The value false trains on CPUs with gloo."""
    selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that workers may run on. Without labels, workers run on any node."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each worker. Ray reserves the same number of CPUs for the worker."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage. Stage 1 shards the optimizer state, stage 2 also the gradients, and
    stage 3 also the parameters."""
    validate_every: int = Field(default=100, ge=0)
    """Number of steps between two measurements on the held-out demonstrations (data.held_out). The
    policy after the last step is measured, too. The exported policy is the one with the lowest
    held-out loss. 0 measures nothing, and exports the last policy."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Number of steps between two checkpoints to the store."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of newest checkpoints that stay in the store."""
    max_failures: int = Field(default=2, ge=-1)
    """Number of restarts within an hour before the run fails. A restart begins at the newest
    checkpoint. Restarts of the process that steers the workers count separately, with the same
    limit. -1 sets no limit."""

    @model_validator(mode="after")
    def batch_divides_among_workers(self) -> Self:
        """Refuse a batch size that does not divide into whole micro-batches on every worker.

        ZeRO's collectives need the same number of micro-batches on every worker.
        """
        share = self.workers * self.micro_batch
        if self.batch_size % share:
            near = max(share, self.batch_size // share * share)
            raise ValueError(
                f"sft.batch_size={self.batch_size} is not a multiple of sft.workers * "
                f"sft.micro_batch = {share}; try sft.batch_size={near}"
            )
        return self
