"""Writes the training state of all ranks as slices, and reads it with any number of ranks.

    rank r --its slices--> state-0000r.json, state-0000r.bin      of each trained parameter:
    rank q <--every slice that overlaps its own-- all files       weight, exp_avg, exp_avg_sq

DeepSpeed's own checkpoints can only be read by the same number of ranks at the same ZeRO stage. The
files of this module say where each slice lies in its parameter. Any number of ranks at any ZeRO
stage can therefore find their values in them. All values are float32, as the optimizer holds them.
No rank ever copies more than one slice at a time.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awares.errors import PolicyError

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's moving averages of the gradient and of its square."""
_WEIGHT, _UPDATES = "weight", "step"


@dataclass(frozen=True, slots=True)
class Slice:
    """The elements of one trained parameter for which this rank holds the optimizer's state.

    Example:
        Slice("lm_head.weight", 0, flat, offset=128, length=64)
    """

    name: str
    """The name of the parameter."""
    start: int
    """The first element of the slice in the flattened parameter."""
    flat: Tensor
    """The optimizer's tensor that contains the values of the slice."""
    offset: int
    """The first element of the slice in `flat`."""
    length: int
    """The number of elements."""

    def of(self, values: Tensor) -> Tensor:
        """Return the view of this slice in `values`, a tensor with the shape of `flat`."""
        return values.detach().view(-1).narrow(0, self.offset, self.length)


def slices(engine: Any) -> list[Slice]:
    """Return the slices of this rank. Without ZeRO, every rank holds all parameters whole."""
    optimizer = engine.optimizer
    masters = _masters(optimizer)
    found = []
    for name, parameter in _trained(engine):
        if hasattr(parameter, "ds_tensor"):
            found.append(_partitioned(name, parameter, optimizer, engine.global_rank))
        elif hasattr(parameter, "_hp_mapping"):
            if (mapping := parameter._hp_mapping) is not None:
                flat = engine.basic_optimizer.param_groups[mapping.param_group_index]["params"][0]
                place = mapping.hp_fragment_address
                start = mapping.lp_fragment_address.start
                found.append(Slice(name, start, flat, place.start, place.numel))
        else:
            master = masters[id(parameter)] if id(parameter) in masters else parameter
            found.append(Slice(name, 0, master, 0, master.numel()))
    return [one for one in found if one.length > 0]


def _partitioned(name: str, parameter: Any, optimizer: Any, rank: int) -> Slice:
    """Return the slice of a parameter that ZeRO-3 has partitioned, without its padding."""
    group, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
    size = parameter.ds_tensor.ds_numel
    start = min(rank * size, parameter.ds_numel)
    flat = optimizer.fp32_partitioned_groups_flat[group]
    return Slice(name, start, flat, offset, min(size, parameter.ds_numel - start))


def _masters(optimizer: Any) -> dict[int, Tensor]:
    """Return the float32 copy of each bfloat16 parameter, which DeepSpeed keeps without ZeRO."""
    if not hasattr(optimizer, "fp32_groups"):
        return {}
    pairs = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return {
        id(parameter): master
        for group, masters in pairs
        for parameter, master in zip(group, masters, strict=True)
    }


def _trained(engine: Any) -> list[tuple[str, Any]]:
    return [(name, one) for name, one in engine.module.named_parameters() if one.requires_grad]


def write(engine: Any, directory: Path) -> None:
    """Write the slices of this rank into `directory`. Every rank must call this function."""
    rank, states = engine.global_rank, engine.basic_optimizer.state
    own = slices(engine)
    if not engine.zero_optimization() and rank > 0:
        own = []
    entries, position, updates = [], 0, 0
    with (directory / f"state-{rank:05d}.bin").open("wb") as file:
        for one in own:
            state = states.get(one.flat, {})
            updates = int(state[_UPDATES]) if state else 0
            for kind, whole in ((_WEIGHT, one.flat), *((key, state.get(key)) for key in MOMENTS)):
                if whole is None:
                    continue
                values = one.of(whole).to("cpu").numpy()
                assert values.dtype == np.float32
                file.write(values.data)
                entries.append([kind, one.name, one.start, one.length, position])
                position += one.length
    index = {"updates": updates, "ranks": engine.world_size, "slices": entries}
    (directory / f"state-{rank:05d}.json").write_text(json.dumps(index), "utf-8")


def read(engine: Any, directory: Path, path: str | None = None) -> None:
    """Load the state in `directory` into the optimizer and the model.

    Every rank must call this function. `path` names the checkpoint in errors. Raises PolicyError if
    a part of the state is missing.
    """
    stored = StoredSlices(directory, path or str(directory))
    states = engine.basic_optimizer.state
    with torch.no_grad():
        for one in slices(engine):
            _copy(stored, _WEIGHT, one, one.of(one.flat))
            if stored.updates:
                state = _started(states[one.flat], one.flat, stored.updates)
                for key in MOMENTS:
                    _copy(stored, key, one, one.of(state[key]))
        for name, parameter in _trained(engine):
            _cast(stored, name, parameter, engine.global_rank)


def _copy(stored: "StoredSlices", kind: str, one: Slice, target: Tensor) -> None:
    target.copy_(stored.values(kind, one.name, one.start, one.length))


def _started(state: dict[str, Any], flat: Tensor, updates: int) -> dict[str, Any]:
    """Set AdamW's number of steps for `flat`, add missing moving averages, and return `state`."""
    state[_UPDATES] = torch.tensor(float(updates))
    for key in MOMENTS:
        if key not in state:
            state[key] = torch.zeros_like(flat)
    return state


def _cast(stored: "StoredSlices", name: str, parameter: Any, rank: int) -> None:
    """Copy the stored weight into the parameter that the model computes with."""
    if hasattr(parameter, "ds_tensor"):
        size = parameter.ds_tensor.ds_numel
        start = min(rank * size, parameter.ds_numel)
        length = min(size, parameter.ds_numel - start)
        own = parameter.ds_tensor.data.view(-1)[:length]
        own.copy_(stored.values(_WEIGHT, name, start, length))
        # A small parameter, which ZeRO-3 also keeps whole on every rank, needs the copy below too.
        if parameter.shape != parameter.ds_shape:
            return
    whole = stored.values(_WEIGHT, name, 0, parameter.numel())
    parameter.data.copy_(whole.view(parameter.shape))


class StoredSlices:
    """The slices of all ranks that wrote a state.

    `updates` is the number of optimizer steps. `path` names the checkpoint in errors.

    Example:
        stored = StoredSlices(directory, "runs/mini/checkpoints/grpo/step-00000050")
        values = stored.values("weight", "lm_head.weight", 0, 128)
    """

    def __init__(self, directory: Path, path: str) -> None:
        self._path = path
        # The slices by kind and name, each with the element at which it begins.
        self._slices: defaultdict[tuple[str, str], list[tuple[int, np.ndarray]]]
        self._slices = defaultdict(list)
        self.updates = 0
        ranks = None
        for file in sorted(directory.glob("state-*.json")):
            # Ignore files that an unfinished upload by more ranks has left. Checkpoints of older
            # releases do not record the number of ranks, so all their files are read.
            if ranks is not None and int(file.stem.removeprefix("state-")) >= ranks:
                break
            ranks = self._add(file)
        for found in self._slices.values():
            found.sort(key=lambda one: one[0])

    def _add(self, file: Path) -> int | None:
        """Add the slices in a file. Return the number of ranks that have written the state."""
        try:
            index = json.loads(file.read_text("utf-8"))
            self.updates = max(self.updates, index["updates"])
            if index["slices"]:
                data = np.memmap(file.with_suffix(".bin"), np.float32, "r")
                for kind, name, start, length, position in index["slices"]:
                    values = data[position : position + length]
                    self._slices[kind, name].append((start, values))
            return index.get("ranks")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._fault(f"has a damaged file {file.name} ({error})") from error

    def _fault(self, what: str) -> PolicyError:
        remedy = f"delete {os.path.dirname(self._path)} to start this job anew"
        return PolicyError(f"checkpoint {self._path} {what}: {remedy}")

    def values(self, kind: str, name: str, start: int, length: int) -> Tensor:
        """Return `length` float32 values of the parameter `name` from the element `start` on.

        `kind` is "weight" or one of MOMENTS. Raises PolicyError if a value is missing.
        """
        result = np.empty(length, np.float32)
        filled, end = start, start + length
        for first, data in self._slices[kind, name]:
            last = min(end, first + len(data))
            if first <= filled < last:
                result[filled - start : last - start] = data[filled - first : last - first]
                filled = last
        if filled < end:
            raise self._fault(f"lacks values of {name} ({kind})")
        return torch.from_numpy(result)
