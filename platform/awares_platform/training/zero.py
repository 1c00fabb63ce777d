"""Trains with DeepSpeed ZeRO on GPUs (NCCL) or CPUs (gloo).

Call `initialize` inside Ray Train's train_loop_per_worker. Every worker must run the same number of
micro-batches, because ZeRO communicates in each one.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.sft import SftConfig
from awares_platform.training import lora
from awares_platform.weights.adapter import is_adapter
from awares_platform.weights.parts import Part, copy_to_cpu, even_parts

# The largest size of DeepSpeed's communication buckets, in elements. DeepSpeed's default of 5e8
# reserves 2 GB per worker, even for a small model.
_BUCKET = 50_000_000


@dataclass(frozen=True, slots=True)
class ZeroSettings:
    """Settings of ZeRO and of the optimizer, which is AdamW.

    `stage` is the ZeRO stage, and `dtype` is the data type of the weights. A `max_grad_norm` of 0
    switches the clipping of gradients off.

    Example:
        ZeroSettings(stage=2, dtype="float32", learning_rate=5e-4)
    """

    stage: Literal[0, 1, 2, 3]
    dtype: Literal["float32", "bfloat16"]
    learning_rate: float
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """The result of one optimizer step.

    Example:
        OptimizerStep(norm=0.7, taken=True)
    """

    norm: float
    """The norm of all gradients before clipping.

    The norm is infinite if the step was not taken, and nan at stage 0 in float32, where DeepSpeed
    records no norm.
    """
    taken: bool
    """False if a gradient was not finite."""


def settings_of(
    section: SftConfig | GrpoConfig, dtype: Literal["float32", "bfloat16"]
) -> ZeroSettings:
    """Return the settings of a training job. `section` is the job's part of the configuration."""
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
    """Return DeepSpeed's configuration.

    `elements` is the number of elements of the trainable parameters, or of all parameters of a
    frozen model. A communication bucket has at most this many elements. `hidden` is the width of
    the language model.
    """
    bucket = max(1, min(_BUCKET, elements))
    return {
        # DeepSpeed uses the micro-batch size only for its throughput log.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # The function `step` decides when to update, so the number of micro-batches may vary.
        "managed_gradient_accumulation": False,
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
    """Return a DeepSpeedEngine with torch's AdamW over the trainable parameters of `model`.

    Every rank must call this function, and all ranks must pass the same weights.
    """
    prepare_process(gpu)
    import deepspeed

    groups = _groups(model, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
    trained = [cast(Any, tensor) for tensor in model.parameters() if tensor.requires_grad]
    elements = sum(getattr(tensor, "ds_numel", tensor.numel()) for tensor in trained)
    text: Any = cast(Any, model).config.get_text_config()
    config = deepspeed_config(settings, elements, text.hidden_size, gpu)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def prepare_process(gpu: bool) -> None:
    """Unless `gpu` is true, make DeepSpeed use the CPU without its shared-memory operator.

    Only tensor-parallel inference needs this operator. By default, DeepSpeed compiles the operator
    in every new home directory, which takes about a minute.
    """
    if gpu:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups.

    Matrices have weight decay. Vectors, such as norms and biases, have none.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if len(_shape(parameter)) >= 2]
    vectors = [parameter for parameter in trainable if len(_shape(parameter)) < 2]
    decays = ((matrices, weight_decay), (vectors, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in decays if group]


def _shape(parameter: Any) -> tuple[int, ...]:
    """Return the whole shape of a parameter, which ZeRO-3 may have partitioned."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def step(engine: Any, losses: Iterable[Tensor], learning_rate: float) -> OptimizerStep:
    """Take one optimizer step on the sum of `losses`. Gradients are averaged over workers.

    No worker takes the step if a gradient of any worker is not finite.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    for loss in losses:
        engine.backward(loss)
    if not engine.zero_optimization() and not _finite_gradients(engine.module):
        engine.optimizer.zero_grad()
        engine.zero_grad()
        return OptimizerStep(math.inf, taken=False)
    engine.step()
    if not engine.was_step_applied():
        return OptimizerStep(math.inf, taken=False)
    norm = engine.get_global_grad_norm()
    return OptimizerStep(math.nan if norm is None else float(norm), taken=True)


def _finite_gradients(model: nn.Module) -> bool:
    """Return whether all gradients are finite. DeepSpeed does not check them without ZeRO.

    All workers get the same result, because `backward` has averaged the gradients over them.
    """
    gradients = (tensor.grad for tensor in model.parameters() if tensor.grad is not None)
    return all(bool(gradient.isfinite().all()) for gradient in gradients)


def full_state(engine: Any) -> dict[str, Tensor]:
    """Return the full weights on the CPU, with transformers' names and merged adapters.

    Every rank must call this function. Rank 0 gets copies of the weights, and the other ranks get
    {}. Tied weights appear once.
    """
    state = _whole(engine, _named(engine.module))
    return lora.merged(engine.module, state) if engine.global_rank == 0 else {}


def full_adapter(engine: Any) -> dict[str, Tensor]:
    """Return the whole adapter on the CPU, under the names of the model's parameters.

    Every rank must call this function. Rank 0 gets the tensors, and the other ranks get {}.
    """
    named = [(name, tensor) for name, tensor in _named(engine.module) if is_adapter(name)]
    return _whole(engine, named)


def _whole(engine: Any, named: list[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return copies of whole tensors on rank 0, and an empty dict on the other ranks."""
    state: dict[str, Tensor] = {}
    for name, tensor in named:
        with _gathered(tensor):
            if engine.global_rank == 0:
                state[name] = tensor.detach().to("cpu", copy=True)
    return state


def owned(engine: Any, dtype: torch.dtype) -> list[Part]:
    """Return this rank's share of the weights on the CPU. Float weights are cast to `dtype`.

    The shares of all ranks together hold each weight once. If the model has adapters, the shares
    hold only the adapters' weights. The ranks do not communicate.
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
    """Round the weights to `dtype` within the block, so that they equal the vLLM engine's weights.

    The tensors keep their data type, and get their exact values back at the end of the block.
    """
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
    """Return the tensors that hold a parameter's values on this rank.

    For a small parameter, ZeRO-3 keeps the whole tensor on every rank in addition to the slice.
    """
    if not hasattr(tensor, "ds_tensor"):
        return [tensor.data]
    # DeepSpeed adds attributes that torch's type annotation lacks.
    partitioned: Any = tensor
    whole = [tensor.data] if tensor.shape == partitioned.ds_shape else []
    return [partitioned.ds_tensor.data, *whole]


def _slice(name: str, tensor: Any, rank: int, dtype: torch.dtype) -> Part:
    """Return this rank's slice of a partitioned parameter, without the padding at its end."""
    length = tensor.ds_tensor.ds_numel
    start = min(rank * length, tensor.ds_numel)
    values = tensor.ds_tensor.detach().reshape(-1)[: min(length, tensor.ds_numel - start)]
    return Part(name, tuple(tensor.ds_shape), start, copy_to_cpu(values, dtype))


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the names and tensors of the parameters and persistent buffers, each tensor once."""
    persistent = set(model.state_dict().keys())
    return [
        *model.named_parameters(),
        *((name, buffer) for name, buffer in model.named_buffers() if name in persistent),
    ]


def _gathered(tensor: Tensor) -> Any:
    import deepspeed

    return deepspeed.zero.GatheredParameters([tensor], enabled=hasattr(tensor, "ds_id"))
