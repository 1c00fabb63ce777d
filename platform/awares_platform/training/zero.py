"""DeepSpeed ZeRO from our settings, on GPUs (NCCL) and CPUs (gloo).

Call `initialize` inside Ray Train's train_loop_per_worker, once the process group stands; hand the model neither to
ray.train.torch.prepare_model nor to a prepared data loader. Step with `step(engine, losses, learning_rate)`: a step may take any
number of micro-batches of any size, as long as it is the same number on every worker (ZeRO's collectives run per micro-batch).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.sft import SftConfig
from awares_platform.training import lora
from awares_platform.weights.adapter import is_adapter
from awares_platform.weights.parts import Part, copy_to_cpu, even_parts

_BUCKET = 50_000_000  # elements; DeepSpeed's default of 5e8 would reserve 2 GB per worker for a model of a few MB


@dataclass(frozen=True, slots=True)
class ZeroSettings:
    """How the optimizer runs. `max_grad_norm` 0 does not clip.

    Example:
        ZeroSettings(stage=2, dtype="float32", learning_rate=5e-4)
    """

    stage: Literal[0, 1, 2, 3]
    dtype: Literal["float32", "bfloat16"]
    learning_rate: float
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


def settings_of(
    section: SftConfig | GrpoConfig, dtype: Literal["float32", "bfloat16"]
) -> ZeroSettings:
    """The settings of a training job, from its section and policy.dtype."""
    return ZeroSettings(
        stage=section.zero_stage,
        dtype=dtype,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
    )


def deepspeed_config(
    settings: ZeroSettings, elements: int, hidden: int, gpu: bool
) -> dict[str, Any]:
    """DeepSpeed's configuration. `elements`: trainable parameters (bounds the buckets); `hidden`: width of the language model."""
    bucket = max(1, min(_BUCKET, elements))
    return {
        "train_micro_batch_size_per_gpu": 1,  # for DeepSpeed's own throughput log only
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # `step` owns the boundary, so the number of micro-batches may vary
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": settings.dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": settings.stage,
            "overlap_comm": gpu and settings.stage >= 2,
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_param_persistence_threshold": 10 * hidden,
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def initialize(model: nn.Module, settings: ZeroSettings, gpu: bool = False) -> Any:
    """A DeepSpeedEngine with torch's AdamW over `model`'s trainable parameters. Every rank calls it with equal weights."""
    prepare_process(gpu)
    import deepspeed

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        _groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas
    )
    language_model: Any = model.get_submodule("model.language_model")
    config = deepspeed_config(
        settings,
        sum(parameter.numel() for parameter in trainable),
        language_model.config.hidden_size,
        gpu,
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def prepare_process(gpu: bool) -> None:
    """Settle what DeepSpeed would otherwise find out by itself, slowly: the accelerator, and on CPU its shared-memory op.

    That op serves tensor-parallel inference only, but probing leads to a C++ build of about a minute in every fresh home directory.
    """
    if gpu:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases and other vectors do not. (Shapes are read before ZeRO-3 partitions them.)"""
    named = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in named if parameter.ndim >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [parameter for parameter in named if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def step(engine: Any, losses: Iterable[Tensor], learning_rate: float) -> float:
    """One optimizer step on the mean over workers of the sum of `losses`, each computed as the iterator is advanced.

    Returns the global gradient norm before clipping; nan at stage 0 in float32, where DeepSpeed keeps none.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    for loss in losses:
        engine.backward(loss)
    engine.step()
    norm = engine.get_global_grad_norm()
    return float("nan") if norm is None else float(norm)


def full_state(engine: Any) -> dict[str, Tensor]:
    """Every weight of the engine's model, whole, on the CPU, adapters merged, under transformers' names.

    Every rank calls it (ZeRO-3 gathers, one parameter at a time); rank 0 returns the state, the others an empty dict. The tensors are
    copies: they stay what they are while training goes on. Tied weights appear once, under their first name.
    """
    model, first = engine.module, engine.global_rank == 0
    state: dict[str, Tensor] = {}
    for name, tensor in _named(model):
        with _gathered(tensor):
            if first:
                state[name] = tensor.detach().to("cpu", copy=True)
    return lora.merged(model, state) if first else {}


def owned(engine: Any, dtype: torch.dtype) -> list[Part]:
    """This rank's share of the weights, on the CPU, floating point ones in `dtype`; the ranks' shares make up every weight once.

    No collective and no gathering: ZeRO-3 hands over the slices that the rank has, the other stages, where every rank has all weights, an
    even cut. A model with adapters yields these alone, under the names of the layers that they belong to.
    """
    rank, ranks = engine.global_rank, engine.dp_world_size
    named = _named(engine.module)
    if lora.scale(engine.module) is not None:
        named = [(name, tensor) for name, tensor in named if is_adapter(name)]
    sliced = [(name, tensor) for name, tensor in named if hasattr(tensor, "ds_tensor")]
    replicated = [(name, tensor) for name, tensor in named if not hasattr(tensor, "ds_tensor")]
    return [
        *(_slice(name, tensor, rank, dtype) for name, tensor in sliced),
        *even_parts(replicated, rank, ranks, dtype),
    ]


@contextmanager
def rounded(engine: Any, dtype: torch.dtype) -> Iterator[None]:
    """Within the block the weights have the values that `dtype` can hold, in the precision that they are trained in: the policy computes
    with what is published. Every rank, with its own slices; costs a copy of them on the CPU where `dtype` is not that of training."""
    held = [
        tensor
        for _, parameter in _named(engine.module)
        for tensor in _storage(parameter)
        if _narrows(tensor, dtype)
    ]
    exact = [tensor.detach().to("cpu", copy=True) for tensor in held]
    with torch.no_grad():
        for tensor in held:
            tensor.copy_(tensor.to(dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in zip(held, exact, strict=True):
                tensor.copy_(values)


def _narrows(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.is_floating_point() and tensor.element_size() > dtype.itemsize


def _storage(tensor: Tensor) -> list[Tensor]:
    """Where a parameter's values lie on this rank: ZeRO-3 keeps small ones whole beside the slice."""
    if not hasattr(tensor, "ds_tensor"):
        return [tensor.data]
    partitioned: Any = tensor  # with the attributes that DeepSpeed gave it
    whole = [tensor.data] if tensor.shape == partitioned.ds_shape else []
    return [partitioned.ds_tensor.data, *whole]


def _slice(name: str, tensor: Any, rank: int, dtype: torch.dtype) -> Part:
    """The rank's slice of a parameter that ZeRO-3 partitioned, without the padding of the last ones."""
    length = tensor.ds_tensor.ds_numel
    start = min(rank * length, tensor.ds_numel)
    values = tensor.ds_tensor.detach().reshape(-1)[: min(length, tensor.ds_numel - start)]
    return Part(name, tuple(tensor.ds_shape), start, copy_to_cpu(values, dtype))


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and those buffers that a checkpoint holds, each once."""
    persistent = set(model.state_dict().keys())
    return [
        *model.named_parameters(),
        *((name, buffer) for name, buffer in model.named_buffers() if name in persistent),
    ]


def _gathered(tensor: Tensor) -> Any:
    import deepspeed

    return deepspeed.zero.GatheredParameters([tensor], enabled=hasattr(tensor, "ds_id"))
