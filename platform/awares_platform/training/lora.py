"""Attaches LoRA adapters with peft, switches them off, and merges them into the weights.

A layer with an adapter computes y = base(x) + scale * B(A(x)), where `base` is frozen. peft
replaces layers of the model in place. Each peft layer contains linear layers, which ZeRO-3 gathers
and partitions like any other layer. Source: Hu et al., arXiv 2106.09685.

The reference policy of GRPO's KL term is the policy at the start of the training. The model
computes it with its adapters off. If the training continues a trained adapter, the model computes
the reference with a copy of this adapter's first values.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from awares.errors import PolicyError
from awares.family import ModelFamily, in_tower
from awares_platform.training.rounding import add_once
from awares_platform.weights.adapter import (
    ADAPTER,
    DOWN,
    UP,
    adapted,
    fold,
    is_adapter,
    rank_of,
    shapes_of,
)
from awares_platform.weights.manifest import WeightsError

_BASE = ".base_layer"
_START_DOWN, _START_UP = "start_down", "start_up"
"""The names of the buffers with the first values of A and B, if a trained adapter is continued."""


def attach(
    model: nn.Module,
    family: ModelFamily,
    rank: int,
    alpha: float,
    targets: tuple[str, ...],
    seed: int,
) -> int:
    """Freeze `model`, attach adapters to its linear layers, and return the number of adapters.

    `targets` names the layers; () means the family's lora_targets. The vision tower gets no
    adapters. Raises PolicyError if no layer matches.
    """
    import peft

    targets = targets or family.lora_targets
    model.requires_grad_(False)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.rsplit(".", 1)[-1] in targets
        and not in_tower(family, name)
    ]
    if not found:
        raise PolicyError(
            f"policy.lora_targets={list(targets)} match no linear layer of the language model; "
            f"name layers such as {family.lora_targets[0]!r}"
        )
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        target_modules=found,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model, ADAPTER)
    for _, layer in _layers(model):
        layer.forward = MethodType(_forward, layer)
    return len(found)


def attach_trained(
    model: nn.Module, family: ModelFamily, adapter: Mapping[str, Tensor], scale: float
) -> None:
    """Freeze `model`, and attach a trained adapter to it.

    `read_peft` returns `adapter` and `scale`. Raises WeightsError if the adapter does not fit the
    model, or adapts the vision tower.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    layers = adapted(shapes_of(adapter), shapes, family.current_name)
    rank, targets = rank_of(shapes_of(adapter)), {name.rpartition(".")[2] for name in layers}
    attach(model, family, rank, scale * rank, tuple(sorted(targets)), seed=0)
    if unknown := model.load_state_dict(adapter, strict=False).unexpected_keys:
        raise WeightsError(
            f"the model has no place for the adapter's tensor {unknown[0]}; "
            "adapt layers of the language model only"
        )


def continue_from(model: nn.Module, adapter: Mapping[str, Tensor], trained_scale: float) -> None:
    """Copy the values of the trained `adapter` into the new adapters of `model`.

    Call this function before DeepSpeed partitions the adapters. Raises PolicyError unless trained
    and new adapters have the same layers, ranks and scale.
    """
    own = {name: tensor for name, tensor in model.named_parameters() if is_adapter(name)}
    if shapes_of(own) != shapes_of(adapter) or scale(model) != trained_scale:
        raise PolicyError(
            "the adapter of the starting policy has other layers, another rank or another alpha "
            "than policy.lora_targets, policy.lora_rank and policy.lora_alpha describe; give "
            "`awares sft` and `awares grpo` the same section [policy]"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(adapter[name])
    for name, layer in _layers(model):
        for buffer, part in ((_START_DOWN, DOWN), (_START_UP, UP)):
            # The buffers are not persistent, so exports and checkpoints leave them out.
            copied = own[f"{name}{part}"].detach().clone()
            layer.register_buffer(buffer, copied, persistent=False)


def _forward(layer: Any, x: Tensor) -> Tensor:
    """Compute the output of a layer with an adapter.

    peft's own method would lose small updates in 16 bits. The learner would then differ from the
    engine, which keeps such updates.
    """
    output = layer.base_layer(x)
    if layer.disable_adapters:
        return output
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    if getattr(layer, "plays_start", False):
        start_down, start_up = layer.start_down, layer.start_up
        change = linear(linear(x.to(start_down.dtype), start_down), start_up)
    else:
        change = up(down(x.to(down.weight.dtype)))
    return add_once(output, change * layer.scaling[ADAPTER])


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off within the block. The model then computes with its frozen weights."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def reference(model: nn.Module) -> Iterator[None]:
    """Within the block, let the model compute like the policy at the start of the training."""
    layers = [layer for _, layer in _layers(model) if hasattr(layer, _START_UP)]
    with nullcontext() if layers else adapters_off(model):
        for layer in layers:
            layer.plays_start = True
        try:
            yield
        finally:
            for layer in layers:
                layer.plays_start = False


def scale(model: nn.Module) -> float | None:
    """Return the scale alpha / rank of the adapters of `model`, or None without adapters."""
    return next((layer.scaling[ADAPTER] for _, layer in _layers(model)), None)


def merged(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` under the base model's names, with the adapters folded into the weights.

    `state` holds the full tensors of `model`. The function does not read the tensors of `model`, so
    these tensors may be partitioned.
    """
    state = dict(state)
    for name, layer in _layers(model):
        down, up = state.pop(f"{name}{DOWN}"), state.pop(f"{name}{UP}")
        weight = state.pop(f"{name}{_BASE}.weight")
        state[f"{name}.weight"] = fold(weight, down, up, layer.scaling[ADAPTER])
        if (bias := state.pop(f"{name}{_BASE}.bias", None)) is not None:
            state[f"{name}.bias"] = bias
    return state


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the names and modules of the layers of `model` that have an adapter."""
    return [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "lora_A")]
