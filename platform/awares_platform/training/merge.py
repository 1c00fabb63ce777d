"""Merges the exported adapter of a LoRA run into the weights of the policy that it belongs to.

    policies/<name>-adapter  (PEFT) --+-- fold in float32, round once --> a policy directory
    base or policies/sft -------------+

Engines and trainers without LoRA load the result. An engine in 16 bits plays an unmerged adapter
more exactly, because rounding loses small updates (see engine/adapters.py).
"""

from pathlib import Path

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.store import ObjectStore
from awares_platform.training import inputs
from awares_platform.training.export import adapter_key, policy_key, write_policy
from awares_platform.training.source import resolve_adapter
from awares_platform.weights.adapter import fold_adapter, read_peft
from awares_platform.weights.checkpoint import Checkpoint


def write_merged(
    store: ObjectStore, run: str, base: str, family: ModelFamily, method: MethodConfig, out: Path
) -> None:
    """Write the policy that `run` trained with LoRA to the empty directory `out`, merged.

    The sums are computed in float32 and rounded once to the data type of the weights. Tensors have
    the names of the base policy, and the files of the processor are as in training. `base` is
    policy.base. `method` is used if the export has no awares.json. Raises PolicyError if the run
    has exported no adapter, or if the adapter belongs to another policy.
    """
    name = "awares"
    found = resolve_adapter(store, run, name, base, family)
    if found is None:
        url = store.config.url
        raise PolicyError(
            f"{url}/{adapter_key(run, name)} is missing: `awares grpo` exports it with "
            f"policy.lora_rank above 0; without LoRA, {url}/{policy_key(run, name)} is the policy"
        )
    source, adapter = found
    weights = Checkpoint(source)
    merged, _ = fold_adapter(*read_peft(adapter), weights, family.current_name)
    trained = inputs.recorded(adapter, method)
    out.mkdir(parents=True, exist_ok=True)
    write_policy({**weights, **merged}, source, out, family, trained)
