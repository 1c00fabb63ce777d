"""Loads a policy for ZeRO-3, so that no rank ever holds the whole model.

transformers first builds the model from config.json, without values. Rank 0 then reads one tensor
after the other from the safetensors files, and sends it to all ranks. Each rank keeps its slice of
the tensor. During loading, a rank thus holds only one whole tensor at a time. GRPO's frozen
reference policy is partitioned in the same way.

transformers has its own partitioned loading, which an HfDeepSpeedConfig switches on. In version
5.19, transformers' loading has three faults, so it is not used here. It rounds the rotary
frequencies to bfloat16, although they must be float32. It does not report unexpected tensors or
tensors of a wrong shape. After an error on rank 0, the other ranks wait forever.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed
from torch import nn

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.training.zero import ZeroSettings, deepspeed_config, prepare_process
from awares_platform.weights.checkpoint import Checkpoint


def load_partitioned(
    path: Path, family: ModelFamily, options: Mapping[str, Any], gpu: bool
) -> tuple[Any, Mapping[str, Any]]:
    """Return the model in `path`, partitioned over all ranks, and transformers' loading report.

    `options` are transformers' arguments for `family.load_model`. Every rank must call this
    function. Raises PolicyError if the files lack a parameter.
    """
    prepare_process(gpu)
    model, report = family.load_model(path, device_map="meta", **options)
    stored = Checkpoint(path)
    names = {family.current_name(name): name for name in stored}
    _fill_buffers(model, stored, names)
    partition = _Partition(options["dtype"])
    for aliases in _parameters(model):
        name = next((names[alias] for alias in aliases if alias in names), None)
        if name is None:
            raise PolicyError(
                f"the weights in {path} have no tensor {aliases[0]}; "
                "take config.json and *.safetensors from one model"
            )
        _place(model, aliases, partition, stored, name)
    return model, report


def frozen_engine(model: nn.Module, settings: ZeroSettings, gpu: bool) -> Any:
    """Return a DeepSpeedEngine that evaluates `model` without training it.

    `model` comes from `load_partitioned`. Each rank holds its slices of the weights. DeepSpeed
    gathers the whole weights of a layer while the ranks compute that layer.
    """
    import deepspeed

    model.requires_grad_(False)
    text: Any = cast(Any, model).config.get_text_config()
    elements = sum(cast(Any, parameter).ds_numel for parameter in model.parameters())
    config = deepspeed_config(settings, elements, text.hidden_size, gpu)
    engine, *_ = deepspeed.initialize(model=model, config=config)
    # Do not return the result of `eval`: unlike torch, DeepSpeed returns None there.
    engine.eval()
    return engine


class _Partition:
    """Partitions parameters one by one, over the ranks of the default process group."""

    # The first partitioned parameter. DeepSpeed adds the method convert_to_zero_parameters to this
    # parameter. The method partitions all other parameters.
    _first: Any = None

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(self, parameter: nn.Parameter) -> None:
        """Replace the values of `parameter` by this rank's slice of the values of rank 0."""
        import deepspeed

        if self._first is None:
            deepspeed.zero.Init(module=nn.ParameterList([parameter]), dtype=self._dtype)
            self._first = parameter
        else:
            self._first.convert_to_zero_parameters(param_list=[parameter])


def _place(
    model: nn.Module, aliases: list[str], partition: _Partition, stored: Checkpoint, name: str
) -> None:
    """Replace the parameter with the names `aliases` by a partitioned parameter.

    The new parameter has the values of the tensor `name` in `stored`.
    """
    empty = model.get_parameter(aliases[0])
    if torch.distributed.get_rank() == 0:
        values = stored[name].to(empty.dtype)
    else:
        # The broadcast of rank 0 overwrites these values.
        values = torch.empty(empty.shape, dtype=empty.dtype)
    parameter = nn.Parameter(values, requires_grad=empty.requires_grad)
    partition(parameter)
    for alias in aliases:
        owner, _, leaf = alias.rpartition(".")
        setattr(model.get_submodule(owner), leaf, parameter)


def _parameters(model: nn.Module) -> Iterator[list[str]]:
    """Yield the names of each parameter. A tied parameter has several names."""
    aliases: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(parameter, []).append(name)
    yield from aliases.values()


def _fill_buffers(model: Any, stored: Checkpoint, names: Mapping[str, str]) -> None:
    """Give each buffer of `model` its values, from `stored` or from transformers.

    Call this function before the parameters get their values, because transformers may overwrite
    the parameters.
    """
    for path, module in model.named_modules():
        own = [name for name, _ in module.named_buffers(recurse=False)]
        for name in own:
            full = names.get(f"{path}.{name}")
            buffer = module.get_buffer(name)
            values = torch.empty_like(buffer, device="cpu") if full is None else stored[full]
            setattr(module, name, values.to(buffer.dtype))
        if own:
            model._init_weights(module)
