"""Merges the exported adapter of a LoRA run into the weights of the adapter's base policy.

    policies/<name>-adapter  (PEFT) --+-- fold in float32, round once --> a policy directory
    base or policies/sft -------------+

The result is for engines and trainers that do not support LoRA. In 16 bits, an engine with an
unmerged adapter is more exact, because the merge rounds away small updates (see
engine/adapters.py).
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
    """Merge the adapter that `run` trained into its base policy, and write the result to `out`.

    `out` is an empty directory, or does not exist yet. The sums are computed in float32 and rounded
    once to the data type of the weights. Tensors have the names that they have in the base policy.
    `out` also gets the input settings of the training, which come from the adapter's awares.json.
    If there is no such file, they come from `method`.
    `base` is policy.base. Raises PolicyError if the run has exported no adapter, or if the adapter
    belongs to another policy.
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
