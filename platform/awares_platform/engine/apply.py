"""Loads a version's changed tensors into the model that a vLLM worker runs.

    checkpoint names --units--> modules with all their tensors --touched(changed)--> apply
    Each module takes its tensors in one of three ways:
      IN_PLACE  The module's parameters have the checkpoint's layout. Such modules are norms,
                convolutions, and unquantised linears on GPUs. `apply` copies the tensors into the
                parameters' storage, because CUDA graphs hold the addresses of this storage.
      REPACK    The module may also hold a packed copy of its parameters. Such modules are
                embeddings and output heads on CPUs, and linears on CPUs without oneDNN. `apply`
                copies the tensors, and vLLM then makes a new packed copy.
      RELOAD    The module's parameters have another layout than the checkpoint's tensors. Such
                modules are linears on CPUs with oneDNN, and quantised layers. `apply` runs vLLM's
                layerwise reload on this module only.

`load_mode` chooses the way. It inspects the module and not the platform.

If only some tensors of a fused module (qkv_proj, gate_up_proj) are loaded, vLLM silently leaves
uninitialised memory in place of the other tensors. `apply` therefore loads all tensors of a module,
even if only one changed.

vLLM's own reload of the whole model would break a tied output head on CPUs. It would restore the
shared parameter, but the head would compute logits with a packed copy of the old values. This file
therefore treats modules that share a parameter as one unit, and loads them together.
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


class LoadMode(enum.Enum):
    """How new tensors are loaded into a module. `load_mode` chooses the mode of each module."""

    IN_PLACE = "in place"
    """The parameters have the checkpoint's layout. `apply` copies the tensors into their storage.

    The addresses of this storage stay valid, which CUDA graphs require. This mode suits norms,
    convolutions, and unquantised linears on GPUs.
    """
    REPACK = "repack"
    """Like IN_PLACE, but the module may also hold a packed copy, which vLLM then makes again.

    On CPUs, this mode suits embeddings, output heads, and linears without oneDNN.
    """
    RELOAD = "reload"
    """The parameters have another layout than the checkpoint's tensors.

    `apply` runs vLLM's layerwise reload on the module. This mode suits quantised layers, and
    linears on CPUs with oneDNN.
    """


@dataclass(frozen=True, slots=True)
class Unit:
    """One module, or several modules that share a parameter, with all their tensors.

    `tensors` are names in the checkpoint, and `parameters` are names in vLLM's model.

    Example:
        Unit(
            modules=(qkv_proj,),
            tensors=("...q_proj.weight", "...k_proj.weight", "...v_proj.weight"),
            parameters=frozenset({"...qkv_proj.weight"}),
        )
    """

    modules: tuple[nn.Module, ...]
    tensors: tuple[str, ...]
    parameters: frozenset[str]


def units(model: nn.Module, names: Iterable[str]) -> tuple[Unit, ...]:
    """Return the units of `model`, in the model's order.

    `names` are all tensors in the checkpoint. Raises WeightsError if `names` do not match the
    model's parameters, or if a shared parameter needs RELOAD.
    """
    reached = {name: parameter_of(model, name) for name in names}
    own = [name for name, _ in model.named_parameters()]
    if left := sorted({*own} - {*reached.values()}):
        raise WeightsError(
            f"the checkpoint has no tensors for {len(left)} parameters of the engine's model: "
            f"{', '.join(left[:_SHOWN])}"
        )
    owners = dict(model.named_modules(remove_duplicate=False))
    leaders = _leaders(model)

    def leader(parameter: str) -> nn.Module:
        return leaders[owners[parameter.rpartition(".")[0]]]

    tensors = _grouped((leader(path), name) for name, path in reached.items())
    parameters = _grouped((leader(name), name) for name in own)
    modules = _grouped((first, module) for module, first in leaders.items())
    found = tuple(
        Unit(tuple(modules[first]), tuple(tensors[first]), frozenset(parameters[first]))
        for first in modules
    )
    _check_shared(found)
    return found


def touched(found: Iterable[Unit], changed: set[str]) -> tuple[Unit, ...]:
    """Return the units with at least one tensor in `changed`, a set of checkpoint names."""
    return tuple(unit for unit in found if not changed.isdisjoint(unit.tensors))


def on_device(
    found: Iterable[Unit], state: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Return copies of the units' tensors on `device`.

    With these copies, `apply` transfers nothing from the host to the device.
    """
    return {name: state[name].to(device) for unit in found for name in unit.tensors}


@torch.no_grad()
def apply(
    model: Any, model_config: Any, found: Iterable[Unit], state: Mapping[str, Tensor]
) -> None:
    """Load the tensors of the units `found` into the model.

    `state` maps the tensors' names in the checkpoint to tensors. Raises WeightsError if the model
    ignores a parameter's tensor. An error can leave the model half updated.
    """
    found = tuple(found)
    modules = [module for unit in found for module in unit.modules]
    modes = [(module, load_mode(module)) for module in modules]
    reloaded = [module for module, mode in modes if mode is LoadMode.RELOAD]
    repacked: list[Any] = [module for module, mode in modes if mode is LoadMode.REPACK]
    for module in reloaded:
        initialize_layerwise_reload(module)
    loaded = model.load_weights((name, state[name]) for unit in found for name in unit.tensors)
    if missed := sorted({name for unit in found for name in unit.parameters} - loaded):
        raise WeightsError(
            f"the engine's model took no tensors for {len(missed)} parameters: "
            f"{', '.join(missed[:_SHOWN])}"
        )
    for module in reloaded:
        finalize_layerwise_reload(module, model_config)
    for module in repacked:
        module.quant_method.process_weights_after_loading(module)


def load_mode(module: Any) -> LoadMode:
    """Return the way in which `module` takes new tensors."""
    method = getattr(module, "quant_method", None)
    unquantised = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)
    if isinstance(method, QuantizeMethodBase) and type(method) not in unquantised:
        # The comparison of layouts below does not suffice here: a quantised layer may scale or
        # permute its parameters without a change of shape or type.
        return LoadMode.RELOAD
    recorded = get_layerwise_info(module).restore_metadata[0]
    if not all(_lies_as(module, name, tensor) for name, tensor in recorded.items()):
        return LoadMode.RELOAD
    # On CPUs a linear layer may compute with a closure, and the closure may hold a packed copy of
    # the weights. Repacking is cheap, so assume that every closure holds such a copy.
    packed = vars(module).get("cpu_linear", nn.functional.linear) is not nn.functional.linear
    return LoadMode.REPACK if packed else LoadMode.IN_PLACE


def aliases(model: nn.Module) -> dict[str, str]:
    """Map each additional name of a shared parameter to the parameter's first name.

    vLLM's loader takes the tensor of the first name and skips the tensors of the other names.
    """
    first: dict[Tensor, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {
        name: known
        for name, parameter in named
        if (known := first.setdefault(parameter, name)) != name
    }


def parameter_of(model: nn.Module, name: str) -> str:
    """Return vLLM's name of the parameter that takes the checkpoint's tensor `name`.

    Each module on the path to the parameter may rename its submodules. Raises WeightsError if the
    model has no such parameter.
    """
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


def _check_shared(found: Iterable[Unit]) -> None:
    for unit in found:
        modes = {load_mode(module) for module in unit.modules}
        if len(unit.modules) > 1 and LoadMode.RELOAD in modes:
            raise WeightsError(
                f"{unit.tensors[0]} is tied and in a layout of its own: "
                "export the policy with tie_word_embeddings false"
            )


def _mapped(module: nn.Module, name: str) -> str:
    mapper: Any = getattr(module, "hf_to_vllm_mapper", None)
    return name if mapper is None else next(iter(mapper.apply_list([name])), name)


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _leaders(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Map every module that has parameters to its leader. The keys are in the model's order.

    The leader is the first module that shares a parameter with the module, or the module itself.
    """
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
    """Return whether the parameter `name` still has the layout of the checkpoint's tensor.

    `recorded` is the parameter before vLLM processed the module. Two tensors have the same layout
    if their classes, shapes, strides and dtypes are equal.
    """
    found = module._parameters.get(name)
    if found is None:
        return False
    return _layout(found) == _layout(recorded)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return type(tensor), tensor.shape, tensor.stride(), tensor.dtype
