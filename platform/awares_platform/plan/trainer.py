"""Memory of one trainer GPU: model states by ZeRO stage, then what a micro-batch adds.

Model states per trained parameter on each of N ranks (ZeRO, arXiv 1910.02054, section 3.1 and figure 1; w bytes per weight, 2 in bfloat16;
the optimizer holds an fp32 master copy and AdamW's two fp32 moments, K = 12):

    stage 0   w + w + 12          stage 2   w + (w + 12) / N
    stage 1   w + w + 12 / N      stage 3   (w + w + 12) / N
"""

from dataclasses import dataclass, fields

from awares_platform.config import PlatformConfig
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths

OPTIMIZER = 12
GIB = 2**30
BUCKET = 50_000_000
"""Elements of a DeepSpeed bucket, as awares_platform.training.zero sets it."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What decides the memory of a rank. `width` is the number of tokens of each sequence in a micro-batch, `scored` the number of
    positions per sequence whose logits are computed; `reference` says that a frozen copy of the whole policy lies beside it.

    Example:
        Trainer(trained=20_185_088, frozen=8_292_166_656, ranks=4, stage=2, weight=2, batch=2, width=8192, scored=1024,
                checkpointing=True, vision=False, reference=False)
    """

    trained: int
    frozen: int
    ranks: int
    stage: int
    weight: int
    batch: int
    width: int
    scored: int
    checkpointing: bool
    vision: bool
    reference: bool


@dataclass(frozen=True, slots=True)
class TrainerMemory:
    """Bytes on one GPU.

    Example:
        TrainerMemory(weights=16_624_703_488, gradients=10_092_544, ...).total
    """

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    buffers: float
    overhead: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def trained_parameters(config: PlatformConfig, shape: Geometry) -> tuple[int, int]:
    """Trained and frozen parameters under [policy]."""
    policy = config.policy
    if policy.lora_rank:
        return shape.adapter_parameters(policy.lora_rank, policy.lora_targets), shape.parameters
    if policy.train_vision:
        return shape.parameters, 0
    return shape.language_parameters, shape.vision_parameters


def trainer(
    config: PlatformConfig, shape: Geometry, lengths: Lengths, job: str, *, typical: bool
) -> Trainer:
    """The rank of `job` ("sft" or "grpo") on micro-batches of typical episodes, or of the longest that the setup lets through."""
    trained, frozen = trained_parameters(config, shape)
    policy, grpo, sft = config.policy, config.grpo, config.sft
    width = lengths.called if typical else lengths.widest
    scored = lengths.answer if typical else grpo.max_tokens
    return Trainer(
        trained=trained,
        frozen=frozen,
        ranks=grpo.learner_workers if job == "grpo" else sft.workers,
        stage=grpo.zero_stage if job == "grpo" else sft.zero_stage,
        weight=2 if policy.dtype == "bfloat16" else 4,
        batch=grpo.micro_batch if job == "grpo" else sft.micro_batch,
        width=width,
        scored=min(width, config.method.max_turns * scored),
        checkpointing=policy.gradient_checkpointing,
        vision=policy.train_vision,
        reference=job == "grpo" and grpo.kl_beta > 0 and not policy.lora_rank,
    )


def memory(rank: Trainer, shape: Geometry, overhead_gib: float) -> TrainerMemory:
    """The table of the module's docstring, and the parts below. With LoRA the frozen policy is the reference: no copy of it is made."""
    shard = [1 / rank.ranks if rank.stage >= stage else 1.0 for stage in (3, 2, 1)]
    return TrainerMemory(
        weights=rank.weight * (rank.trained + rank.frozen) * shard[0],
        gradients=rank.weight * rank.trained * shard[1],
        optimizer=OPTIMIZER * rank.trained * shard[2],
        reference=rank.weight * (rank.trained + rank.frozen) if rank.reference else 0.0,
        activations=activations(rank, shape),
        logits=logits(rank, shape),
        buffers=buffers(rank, shape),
        overhead=overhead_gib * GIB,
    )


def activations(rank: Trainer, shape: Geometry) -> float:
    """Bytes kept for the backward pass, per token and layer in the manner of Korthikanti et al., arXiv 2205.05198, section 4.1:

    inputs of both norms and of what follows them, q, attention's output (6 widths), k and v; gate, up, their activation and product
    (4 MLP widths), w bytes each; both norms' fp32 inputs (2 widths of 4 bytes). Flash attention keeps no scores. With checkpointing only
    the input of each layer stays, and one layer is recomputed at a time. A trained vision tower counts the same way per patch; a frozen
    one passes one layer at a time.
    """
    layer = (
        rank.weight * (6 * shape.hidden + 2 * shape.kv_width + 4 * shape.intermediate)
        + 8 * shape.hidden
    )
    kept = (
        shape.layers * rank.weight * shape.hidden + layer
        if rank.checkpointing
        else shape.layers * layer
    )
    block = rank.weight * (8 * shape.v_hidden + 4 * shape.v_intermediate) + 8 * shape.v_hidden
    patches = shape.merge**2
    tower = patches * block * (shape.v_depth if rank.vision and not rank.checkpointing else 1)
    return float(rank.batch * rank.width * (kept + tower))


def logits(rank: Trainer, shape: Geometry) -> float:
    """Bytes around the head: its output and the scored rows of it (w each), in fp32 twice (tempered, and with blocked ids), and the fp32
    gradient. The head runs at scored positions only (awares.batch.policy_logprobs)."""
    return float(rank.batch * rank.scored * shape.vocab * (2 * rank.weight + 3 * 4))


def buffers(rank: Trainer, shape: Geometry) -> float:
    """DeepSpeed's working memory: two reduce buckets and one gather bucket (w per element), the fp32 gradients of the rank's own partition
    while the optimizer steps, and in stage 3 the largest unit that is gathered whole."""
    bucket = 3 * rank.weight * min(BUCKET, rank.trained)
    step = 4 * rank.trained / (rank.ranks if rank.stage else 1)
    gathered = (
        rank.weight * max(shape.vocab * shape.hidden, shape.layer_parameters)
        if rank.stage == 3
        else 0
    )
    return bucket + step + gathered
