"""Computes the memory of one trainer GPU: the model states, and the tensors of a micro-batch.

The model states are weights, gradients and optimizer states. On each of N ranks, a trained
parameter takes these bytes:

    stage 0   w + w + 12          stage 2   w + (w + 12) / N
    stage 1   w + w + 12 / N      stage 3   (w + w + 12) / N

Here w is the number of bytes of one weight, which is 2 in bfloat16. The optimizer takes 12 bytes
for an fp32 master copy and the two fp32 moments of AdamW. Source: ZeRO, arXiv 1910.02054, section
3.1 and figure 1.
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
"""Elements per patch that the patch embedding and the merger keep, per unit of hidden width.

They keep these elements for the backward pass. The hidden width is that of the vision tower.
"""


@dataclass(frozen=True, slots=True)
class Trainer:
    """The quantities that determine the memory of one rank.

    `trained` and `frozen` count parameters. `ranks` is the number of ranks, and `stage` is the ZeRO
    stage. `weight` is the number of bytes of one weight. A micro-batch has `batch` sequences of
    `width` tokens. Each sequence has logits at `scored` positions. `checkpointing` is true if the
    backward pass recomputes the activations. `vision` is true if the vision tower is trained.
    `reference` is true if the ranks hold a frozen copy of the policy. Stage 3 partitions this copy
    like the weights.

    Example:
        Trainer(
            trained=20_185_088, frozen=8_292_166_656, ranks=4, stage=2, weight=2, batch=2,
            width=8192, scored=1024, checkpointing=True, vision=False, reference=False,
        )
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
    """The number of bytes that each part of a trainer takes on one GPU.

    - `weights`, `gradients` and `optimizer`: the model states.
    - `reference`: the frozen copy of the policy, if there is one.
    - `activations`: the tensors that a micro-batch keeps for its backward pass.
    - `layer`: the temporary tensors in the backward pass of one layer.
    - `logits`: the logits and their temporary tensors.
    - `buffers`: DeepSpeed's working memory.
    - `overhead`: the memory that CUDA, NCCL, libraries and fragmentation take.

    `layer` and `logits` are not in memory at the same time, because the backward pass finishes the
    logits before the layers.

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
    activations: float
    layer: float
    logits: float
    buffers: float
    overhead: float

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

    The table at the top of this file gives the bytes of the model states. The functions below
    compute the other parts. With LoRA the frozen weights serve as the reference policy, so the rank
    holds no second copy of the weights.
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

    With checkpointing, a layer keeps only its input: one vector of the hidden width per token.
    Otherwise a layer keeps the tensors that `_decoder_layer` counts. The blocks of a trained vision
    tower keep the corresponding tensors for each patch. The patch embedding and the merger of such
    a tower keep tensors, too. A frozen tower keeps nothing. The batch itself holds the pixels in
    fp32. The count assumes that all tokens are visual tokens.
    """
    patches = shape.merge**2
    pixels = patches * 3 * shape.v_temporal * shape.patch**2 * 4
    if rank.checkpointing:
        kept, block = rank.weight * shape.hidden, rank.weight * shape.v_hidden
    else:
        kept, block = _decoder_layer(rank, shape), _vision_block(rank, shape)
    ends = MERGER * rank.weight * shape.v_hidden
    tower = patches * (shape.v_depth * block + ends) if rank.vision else 0
    return float(rank.batch * rank.width * (pixels + shape.layers * kept + tower))


def layer(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes of temporary tensors in the backward pass of one layer.

    With checkpointing, the backward pass first recomputes the tensors that the layer did not keep.
    The gradients then take two MLP widths per token. A trained vision tower has its backward pass
    after the decoder layers. These passes do not overlap, so only the larger of a vision block and
    a decoder layer counts. A frozen tower adds nothing. It has no backward pass, and its forward
    pass ends before the decoder layers keep any tensors.
    """
    decoder, block = 2 * rank.weight * shape.intermediate, 2 * rank.weight * shape.v_intermediate
    if rank.checkpointing:
        decoder += _decoder_layer(rank, shape)
        block += _vision_block(rank, shape)
    tower = shape.merge**2 * block if rank.vision else 0
    return float(rank.batch * rank.width * max(decoder, tower))


def _decoder_layer(rank: Trainer, shape: Geometry) -> int:
    """Return the bytes per token that a decoder layer keeps for its backward pass.

    These tensors have `rank.weight` bytes per element:
    - the inputs and outputs of both norms, q, and the output of attention (6 hidden widths);
    - k and v (2 key widths);
    - gate, up, the activation and the product (4 MLP widths).
    The layer also keeps fp32 copies of the inputs of both norms: 8 * (hidden width) bytes. Flash
    attention stores no score matrix. Source: Korthikanti et al., arXiv 2205.05198, section 4.1.
    """
    widths = 6 * shape.hidden + 2 * shape.kv_width + 4 * shape.intermediate
    return rank.weight * widths + 8 * shape.hidden


def _vision_block(rank: Trainer, shape: Geometry) -> int:
    """Return the bytes per patch that a vision block keeps for its backward pass."""
    return rank.weight * (8 * shape.v_hidden + 4 * shape.v_intermediate) + 8 * shape.v_hidden


def logits(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes of the logits. Only scored positions have logits.

    The backward pass of awares.logprobs.chosen_logprobs holds four fp32 tensors with one element
    per logit. These are the input of logsumexp, this input minus the result of logsumexp, the
    softmax, and the gradient.
    """
    return float(rank.batch * rank.scored * shape.vocab * 4 * 4)


def buffers(rank: Trainer, shape: Geometry) -> float:
    """Return the number of bytes of DeepSpeed's working memory.

    This memory holds two reduce buckets and one gather bucket, with `rank.weight` bytes per
    element. During the optimizer's step, the memory also holds the fp32 gradients of the rank's
    partition. With stage 3, it also holds the parameters of the largest module.
    """
    bucket = 3 * rank.weight * min(BUCKET, rank.trained)
    step = 4 * rank.trained / (rank.ranks if rank.stage else 1)
    unit = max(shape.vocab * shape.hidden, shape.layer_parameters)
    return bucket + step + (rank.weight * unit if rank.stage == 3 else 0)
