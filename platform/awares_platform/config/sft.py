"""[sft]: supervised fine-tuning on curated demonstrations (paper, section 3.3)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section


class SftConfig(Section):
    """Settings of SFT. The defaults suit AwaRes-Mini; each field names the paper's value."""

    epochs: int = Field(default=2, ge=1)
    """Passes over the curated samples (paper: 2)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate (paper: 1e-4 with LoRA)."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the learning rate rises linearly; a cosine to zero follows."""
    weight_decay: float = Field(default=0.001, ge=0)
    """AdamW weight decay; norms and biases are exempt."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Global gradient norm to clip to; 0 does not clip."""
    tool_turn_weight: float = Field(default=16.0, gt=0)
    """w_t: weight of a crop request's tokens; other assistant tokens weigh 1 (paper: 5).

    A higher weight makes the policy ask more often. GRPO can teach it to ask less, but not to ask
    where it never does."""
    batch_size: int = Field(default=64, ge=1)
    """Samples per optimizer step over all workers (paper: 16 in its text, 128 in its appendix)."""
    micro_batch: int = Field(default=32, ge=1)
    """Samples per worker and forward pass; batch_size is a multiple of workers * micro_batch."""
    workers: int = Field(default=1, ge=1)
    """Data-parallel trainer processes."""
    use_gpu: bool = False
    """One GPU per worker (NCCL); otherwise CPU (gloo)."""
    selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the Ray nodes that workers may run on; empty takes any."""
    threads: int = Field(default=1, ge=1)
    """CPU threads, and CPUs reserved, per worker."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage: 1 shards the optimizer state, 2 also gradients, 3 also parameters."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between checkpoints to the store."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that stay in the store."""
    max_failures: int = Field(default=2, ge=-1)
    """How often the run restarts from its newest checkpoint after a lost worker; -1: any number."""

    @model_validator(mode="after")
    def batch_divides_among_workers(self) -> Self:
        """ZeRO's collectives need the same number of micro-batches on every worker."""
        share = self.workers * self.micro_batch
        if self.batch_size % share:
            near = max(share, self.batch_size // share * share)
            raise ValueError(
                f"sft.batch_size={self.batch_size} is not a multiple of sft.workers * "
                f"sft.micro_batch = {share}; try sft.batch_size={near}"
            )
        return self
