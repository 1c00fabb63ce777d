"""Merges the exported adapter of a LoRA run into the policy from which its training started.

    policies/<name>-adapter  (PEFT) --+-- fold in float32, round once --> a policy directory
    base or policies/sft -------------+

`write_merged` keeps the data type of the starting policy. The result is for engines and trainers
that do not support LoRA. In 16 bits, an engine with an unmerged adapter is more exact, because the
merge rounds away small updates (see engine/adapters.py). `folded` keeps the sums in float32, for
engines in float32.
"""

from pathlib import Path

import torch

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.store import ObjectStore
from awares_platform.training import inputs
from awares_platform.training.export import adapter_key, policy_key, write_policy
from awares_platform.training.identity import combined, content_digest
from awares_platform.training.source import installed, resolve_adapter
from awares_platform.weights.adapter import UP, fold_adapter, read_peft
from awares_platform.weights.checkpoint import Checkpoint


def write_merged(
    store: ObjectStore, run: str, base: str, family: ModelFamily, method: MethodConfig, out: Path
) -> None:
    """Merge the adapter of `run` into the policy from which its training started.

    `out` is an empty or missing directory. `method` is recorded if the adapter has no awares.json.
    Raises PolicyError if the run has not exported an adapter of the policy "awares".
    """
    name = "awares"
    found = resolve_adapter(store, run, name, base, family)
    if found is None:
        url = store.config.url
        raise PolicyError(
            f"{url}/{adapter_key(run, name)} is missing: `awares grpo` exports it with "
            f"policy.lora_rank above 0; without LoRA, {url}/{policy_key(run, name)} is the policy"
        )
    out.mkdir(parents=True, exist_ok=True)
    _write(*found, family, method, out, None)


def folded(source: Path, adapter: Path, family: ModelFamily, method: MethodConfig) -> Path:
    """Return a directory with the sum of the policy in `source` and the PEFT adapter in `adapter`.

    The weights are in float32. See `write_merged` for `method`. Raises WeightsError if the adapter
    does not fit.
    """
    files = {"policy": content_digest(source), "adapter": content_digest(adapter)}
    name = combined({**files, "dtype": "float32"})[:24]

    def write(directory: Path) -> None:
        _write(source, adapter, family, method, directory, torch.float32)

    return installed(name, write)


def check_complete(source: Path, adapter: Path, merged: Path, family: ModelFamily) -> None:
    """Raise PolicyError if the training changed a weight that the adapter does not change.

    `merged` is the exported policy with the adapter added, and `source` is the policy before the
    training.
    """
    tensors, _ = read_peft(adapter)
    changed = {
        family.current_name(f"{name.removesuffix(UP)}.weight")
        for name, tensor in tensors.items()
        if name.endswith(UP) and tensor.any()
    }
    before = Checkpoint(source)
    names = {family.current_name(name): name for name in before}
    for name, tensor in Checkpoint(merged).items():
        here = family.current_name(name)
        if here in changed or here not in names:
            continue
        if not torch.equal(before[names[here]].to(tensor.dtype), tensor):
            raise PolicyError(
                f"the adapter in {adapter} does not change {name}, but the exported policy in "
                f"{merged} differs from {source} there; train the policy again to export both"
            )


def _write(
    source: Path,
    adapter: Path,
    family: ModelFamily,
    method: MethodConfig,
    out: Path,
    dtype: torch.dtype | None,
) -> None:
    """Add the adapter to the policy in `source`, and write the sum to the empty directory `out`.

    The weights get the data type `dtype`. If `dtype` is None, they keep their own data types.
    """
    weights = Checkpoint(source)
    merged, _ = fold_adapter(*read_peft(adapter), weights, family.current_name, dtype)
    state = {name: merged[name] if name in merged else weights[name] for name in weights}
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    write_policy(state, source, out, family, inputs.recorded(adapter, method))
