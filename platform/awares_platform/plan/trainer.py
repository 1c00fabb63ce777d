"""Computes the memory of one trainer GPU: the model states, and the tensors of a micro-batch.

A trained parameter takes these bytes of weights, gradients and optimizer states on each of N ranks:

    stage 0   w + w + 12          stage 2   w + (w + 12) / N
    stage 1   w + w + 12 / N      stage 3   (w + w + 12) / N

w is the bytes of a weight. The 12 bytes are AdamW's fp32 master weight and two moments.

Source: ZeRO, arXiv 1910.02054, section 3.1 and figure 1.
"""

import sys
from dataclasses import dataclass, fields

from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.sft import SftConfig
from awares_platform.plan.geometry import Geometry

OPTIMIZER = 12
"""Number of bytes of optimizer state per trained parameter. The ZeRO paper calls this number K."""
GIB = 2**30
BUCKET = 50_000_000
"""Number of elements of a DeepSpeed bucket. awares_platform.training.zero sets the same number."""
MERGER = 7
"""Elements per patch that the patch embedding and the merger keep, in hidden widths.

The backward pass needs these elements. The hidden width is that of the vision tower.
"""


@dataclass(frozen=True, slots=True)
class Trainer:
    """The quantities that determine the memory of one rank.

    Example:
        Trainer(
            trained=20_185_088, frozen=8_292_166_656, ranks=4, stage=2, weight=2, batch=2,
            width=8192, scored=1024, checkpointing=True, vision=False, reference=False,
        )
    """

    trained: int
    """Number of trained parameters."""
    frozen: int
    """Number of frozen parameters."""
    ranks: int
    """Number of ranks."""
    stage: int
    """ZeRO stage."""
    weight: int
    """Bytes of one weight."""
    batch: int
    """Sequences in a micro-batch."""
    width: int
    """Tokens in a sequence."""
    scored: int
    """Positions with logits in a sequence."""
    checkpointing: bool
    """Whether the backward pass recomputes the activations."""
    vision: bool
    """Whether the vision tower is trained."""
    reference: bool
    """Whether the ranks hold a frozen copy of the policy.

    Stage 3 partitions this copy like the weights.
    """


@dataclass(frozen=True, slots=True)
class TrainerMemory:
    """The number of bytes that each part of a trainer takes on one GPU.

    Example:
        TrainerMemory(
            weights=1.7e10, gradients=1e7, optimizer=6e7, reference=0.0, activations=4e9, layer=3e9,
            logits=5e9, buffers=2e8, overhead=3e9,
        ).total
    """

    weights: float
    gradients: float
    optimizer: float
    reference: float
    """Frozen copy of the policy, or 0."""
    activations: float
    """Tensors that a micro-batch keeps for its backward pass."""
    layer: float
    """Temporary tensors in the backward pass of one layer. By then, `logits` are freed."""
    logits: float
    """Logits and their temporary tensors."""
    buffers: float
    """DeepSpeed's working memory."""
    overhead: float
    """Memory of CUDA, NCCL, libraries and fragmentation."""

    @property
    def total(self) -> float:
        """The largest number of bytes on one GPU during a forward and backward pass."""
        parts = sum(getattr(self, field.name) for field in fields(self))
        return parts - min(self.layer, self.logits)


def element_bytes(dtype: str) -> int:
    """Return the number of bytes of one element.

    The result is 4 for float32 and 2 for bfloat16, float16 and "auto", which is bfloat16 on GPUs.
    """
    return 4 if dtype == "float32" else 2


def trained_parameters(policy: PolicyConfig, shape: Geometry) -> tuple[int, int]:
    """Return the numbers of trained and of frozen parameters.

    Raises ConfigError for an unknown name in policy.lora_targets.
    """
    if policy.lora_rank:
        return shape.adapter_parameters(policy.lora_rank, policy.lora_targets), shape.parameters
    if policy.train_vision:
        return shape.parameters, 0
    return shape.language_parameters, shape.vision_parameters


def trainer(
    policy: PolicyConfig, job: SftConfig | GrpoConfig, shape: Geometry, width: int, scored: int
) -> Trainer:
    """Describe a rank of `job`. Each sequence has `width` tokens and `scored` rows of logits."""
    trained, frozen = trained_parameters(policy, shape)
    learner = isinstance(job, GrpoConfig)
    return Trainer(
        trained=trained,
        frozen=frozen,
        ranks=job.learner_workers if learner else job.workers,
        stage=job.zero_stage,
        weight=element_bytes(policy.dtype),
        batch=max(1, min(job.micro_batch, (job.micro_tokens or sys.maxsize) // width)),
        width=width,
        scored=min(width, scored),
        checkpointing=policy.gradient_checkpointing,
        vision=policy.train_vision,
        reference=learner and job.kl_beta > 0 and not policy.lora_rank,
    )


def memory(rank: Trainer, shape: Geometry, overhead_gib: float) -> TrainerMemory:
    """Compute the memory of a rank.

    With LoRA, the frozen weights serve as the reference policy, so the rank holds no second copy.
    """
    shard = [1 / rank.ranks if rank.stage >= stage else 1.0 for stage in (3, 2, 1)]
    return TrainerMemory(
        weights=rank.weight * (rank.trained + rank.frozen) * shard[0],
        gradients=rank.weight * rank.trained * shard[1],
        optimizer=OPTIMIZER * rank.trained * shard[2],
        reference=rank.weight * (rank.trained + rank.frozen) * shard[0] if rank.reference else 0.0,
        activations=activations(rank, shape),
        layer=layer(rank, shape),
        logits=logits(rank, shape),
        buffers=buffers(rank, shape),
        overhead=overhead_gib * GIB,
    )


def activations(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes that a micro-batch keeps from its forward to its backward pass.

    All tokens count as visual tokens. The batch holds their pixels in fp32.
    """
    patches = shape.merge**2
    pixels = patches * 3 * shape.v_temporal * shape.patch**2 * 4
    if rank.checkpointing:
        # With checkpointing, a layer keeps only its input.
        kept, block = rank.weight * shape.hidden, rank.weight * shape.v_hidden
    else:
        kept, block = _decoder_layer(rank, shape), _vision_block(rank, shape)
    # The patch embedding and the merger of a trained vision tower keep tensors, too.
    ends = MERGER * rank.weight * shape.v_hidden
    tower = patches * (shape.v_depth * block + ends) if rank.vision else 0
    return float(rank.batch * rank.width * (pixels + shape.layers * kept + tower))


def layer(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes of temporary tensors in the backward pass of one layer.

    Vision blocks and decoder layers have their backward passes one after the other, so the larger
    one counts. A frozen vision tower has no backward pass.
    """
    # The gradients take two MLP widths per token.
    decoder, block = 2 * rank.weight * shape.intermediate, 2 * rank.weight * shape.v_intermediate
    if rank.checkpointing:
        # With checkpointing, the backward pass first recomputes the layer's tensors.
        decoder += _decoder_layer(rank, shape)
        block += _vision_block(rank, shape)
    tower = shape.merge**2 * block if rank.vision else 0
    return float(rank.batch * rank.width * max(decoder, tower))


def _decoder_layer(rank: Trainer, shape: Geometry) -> int:
    """Return the bytes per token that a decoder layer keeps for its backward pass.

    Flash attention stores no score matrix.

    Source: Korthikanti et al., arXiv 2205.05198, section 4.1.
    """
    # 6 hidden widths: inputs and outputs of both norms, q, and the output of attention.
    # 2 key widths: k and v. 4 MLP widths: gate, up, the activation and the product.
    widths = 6 * shape.hidden + 2 * shape.kv_width + 4 * shape.intermediate
    # The layer also keeps fp32 copies of the inputs of both norms: 2 * 4 bytes per hidden unit.
    return rank.weight * widths + 8 * shape.hidden


def _vision_block(rank: Trainer, shape: Geometry) -> int:
    """Return the bytes per patch that a vision block keeps for its backward pass."""
    return rank.weight * (8 * shape.v_hidden + 4 * shape.v_intermediate) + 8 * shape.v_hidden


def logits(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes of the logits. Only scored positions have logits.

    The backward pass of awares.logprobs.chosen_logprobs holds four fp32 tensors of this size.
    """
    return float(rank.batch * rank.scored * shape.vocab * 4 * 4)


def buffers(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes of DeepSpeed's working memory."""
    # Two reduce buckets and one gather bucket.
    bucket = 3 * rank.weight * min(BUCKET, rank.trained)
    # The fp32 gradients of the rank's partition, during the optimizer's step.
    step = 4 * rank.trained / (rank.ranks if rank.stage else 1)
    # Stage 3 also gathers the parameters of the largest module.
    unit = max(shape.vocab * shape.hidden, shape.layer_parameters)
    return bucket + step + (rank.weight * unit if rank.stage == 3 else 0)
