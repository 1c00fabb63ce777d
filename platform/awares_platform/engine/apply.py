"""Putting a version's tensors into the model that a vLLM worker runs: what changed, and nothing else.

    checkpoint names --units--> modules with all their tensors --touched(changed)--> apply: per module one of
      IN_PLACE  parameters lie as in the checkpoint (norms, convolutions; unquantised linears on GPUs): copied into the storage that they
                have, which CUDA graphs point to
      REPACK    the same, and the module also holds a packed copy (embeddings and output heads on CPU): copied, then packed again
      RELOAD    parameters were turned into another layout (linears on CPU, quantised layers): vLLM's layerwise reload, of that module only

Which one is read off the module, never off the platform. A unit is loaded whole: a fused module (qkv_proj, gate_up_proj) that gets a part
of its tensors would be filled up with uninitialised memory, silently.

Why not vLLM's reload of the whole model: it also visits every module that gets nothing, and it leaves a tied output head wrong on CPU.
The head has no tensor of its own in the checkpoint, so its shared parameter is put back, with the new values, but the head's packed copy
of the old ones is what computes logits. Here modules that share a parameter are one unit, and each packs again.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from awares_platform.weights.manifest import WeightsError

_SHOWN = 3
K = TypeVar("K")
V = TypeVar("V")


class Policy(enum.Enum):
    """How a module takes new tensors."""

    IN_PLACE = "in place"
    REPACK = "repack"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class Unit:
    """Modules that share parameters (nearly always one), and every checkpoint tensor they are made of.

    Example:
        Unit((qkv_proj,), ("...q_proj.weight", "...k_proj.weight", "...v_proj.weight"), frozenset({"...qkv_proj.weight"}))
    """

    modules: tuple[nn.Module, ...]
    tensors: tuple[str, ...]
    parameters: frozenset[str]


def units(model: nn.Module, names: Iterable[str]) -> tuple[Unit, ...]:
    """The model's units for a checkpoint that holds `names`, in the model's order.

    Raises WeightsError for a name that leads to no parameter, for a parameter that no name leads to, and for shared parameters in a layout
    that only a reload can write.
    """
    reached = {name: parameter_of(model, name) for name in names}
    own = [name for name, _ in model.named_parameters()]
    if left := sorted({*own} - {*reached.values()}):
        raise WeightsError(
            f"the checkpoint has no tensors for {len(left)} parameters of the engine's model: {', '.join(left[:_SHOWN])}"
        )
    owners = dict(model.named_modules(remove_duplicate=False))
    leaders = _leaders(model)

    def leader(parameter: str) -> nn.Module:
        return leaders[owners[parameter.rpartition(".")[0]]]

    tensors, parameters = (
        _grouped((leader(path), name) for name, path in reached.items()),
        _grouped((leader(name), name) for name in own),
    )
    modules = _grouped((first, module) for module, first in leaders.items())
    found = tuple(
        Unit(tuple(modules[first]), tuple(tensors[first]), frozenset(parameters[first]))
        for first in modules
    )
    for unit in found:
        if len(unit.modules) > 1 and any(
            policy(module) is Policy.RELOAD for module in unit.modules
        ):
            raise WeightsError(
                f"{unit.tensors[0]} is tied and in a layout of its own: export the policy with tie_word_embeddings false"
            )
    return found


def touched(found: Iterable[Unit], changed: set[str]) -> tuple[Unit, ...]:
    """The units of which at least one tensor changed."""
    return tuple(unit for unit in found if not changed.isdisjoint(unit.tensors))


def on_device(
    found: Iterable[Unit], state: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """The units' tensors on `device`, so that `apply` has only to copy there."""
    return {name: state[name].to(device) for unit in found for name in unit.tensors}


@torch.no_grad()
def apply(
    model: Any, model_config: Any, found: Iterable[Unit], state: Mapping[str, Tensor]
) -> None:
    """Load the units' tensors from `state`, by checkpoint names. Whatever it raises leaves the model half updated: it must not be used."""
    found = tuple(found)
    modules = [module for unit in found for module in unit.modules]
    reloaded = [module for module in modules if policy(module) is Policy.RELOAD]
    repacked: list[Any] = [module for module in modules if policy(module) is Policy.REPACK]
    for module in reloaded:
        initialize_layerwise_reload(module)
    loaded = model.load_weights((name, state[name]) for unit in found for name in unit.tensors)
    if missed := sorted({name for unit in found for name in unit.parameters} - loaded):
        raise WeightsError(
            f"the engine's model took no tensors for {len(missed)} parameters: {', '.join(missed[:_SHOWN])}"
        )
    for module in reloaded:
        finalize_layerwise_reload(module, model_config)
    for module in repacked:
        module.quant_method.process_weights_after_loading(module)


def policy(module: Any) -> Policy:
    """How `module` takes new tensors, by what it holds now."""
    method = getattr(module, "quant_method", None)
    if isinstance(method, QuantizeMethodBase) and type(method) not in (
        UnquantizedLinearMethod,
        UnquantizedEmbeddingMethod,
    ):
        return Policy.RELOAD  # a scale or a permutation may differ where shapes and types do not
    if not all(
        _lies_as(module, name, recorded)
        for name, recorded in get_layerwise_info(module).restore_metadata[0].items()
    ):
        return Policy.RELOAD
    # vLLM's CPU linears compute by a closure; whether over a packed copy or over the weight cannot be seen, and packing again costs little
    packed = vars(module).get("cpu_linear", nn.functional.linear) is not nn.functional.linear
    return Policy.REPACK if packed else Policy.IN_PLACE


def aliases(model: nn.Module) -> dict[str, str]:
    """Each further name of a shared parameter to its first one; vLLM's loader takes the first and skips the others."""
    first: dict[Tensor, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {
        name: known
        for name, parameter in named
        if (known := first.setdefault(parameter, name)) != name
    }


def parameter_of(model: nn.Module, name: str) -> str:
    """vLLM's name of the parameter that takes a checkpoint's tensor: each module on the way may rename what lies below it."""
    module, path, rest = model, "", name
    while True:
        rest = _mapped(module, rest)
        head, _, below = rest.partition(".")
        child = module._modules.get(head)
        if child is None:
            break
        module, path, rest = child, f"{path}{head}.", below
    if rest not in module._parameters:
        raise WeightsError(
            f"the engine's model has no parameter for {name} (looked for {path}{rest})"
        )
    return path + rest


def _mapped(module: nn.Module, name: str) -> str:
    mapper: Any = getattr(module, "hf_to_vllm_mapper", None)
    return name if mapper is None else next(iter(mapper.apply_list([name])), name)


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _leaders(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Every module that has parameters, in the model's order, to the first of those that share one of them."""
    first: dict[Tensor, nn.Module] = {}
    leaders: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if own := [*module.parameters(recurse=False)]:
            leaders[module] = next(
                (first[parameter] for parameter in own if parameter in first), module
            )
            first.update((parameter, leaders[module]) for parameter in own)
    return leaders


def _lies_as(module: nn.Module, name: str, recorded: Tensor) -> bool:
    """Whether a parameter is still as the checkpoint's tensors are copied into it: shape, strides and type as before processing."""
    found = module._parameters.get(name)
    if found is None:
        return False
    return (type(found), found.shape, found.stride(), found.dtype) == (
        type(recorded),
        recorded.shape,
        recorded.stride(),
        recorded.dtype,
    )
