"""Chooses the files from which an engine serves an exported policy.

    training         engine      files
    whole weights    any         the policy itself
    LoRA             float32     the policy before the training, with the adapter added in float32
    LoRA             16 bits     the policy before the training, and the adapter

Merged LoRA weights in 16 bits would lack small updates.
"""

from dataclasses import dataclass
from pathlib import Path

from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.engine.adapters import stays_adapter
from awares_platform.store import ObjectStore
from awares_platform.training.merge import folded
from awares_platform.training.source import PolicyName, resolve, resolve_adapter
from awares_platform.training.start import StartingPolicy
from awares_platform.weights.adapter import rank_in


@dataclass(frozen=True, slots=True)
class Playable:
    """The directories from which an engine serves a policy.

    Example:
        Playable(Path("/models/qwen"), adapter=None, base=Path("/models/qwen"))
    """

    policy: Path
    adapter: Path | None
    """The PEFT directory of an adapter that vLLM applies to `policy`, or None."""
    base: Path
    """The policy without adapters, to which the engine adds the adapters that it loads later."""


def playable(
    store: ObjectStore,
    run: str,
    name: PolicyName,
    base: str,
    family: ModelFamily,
    dtype: str,
    method: MethodConfig,
) -> Playable:
    """Return the verified files of the policy `name` for an engine with the data type `dtype`.

    Raises the errors of `resolve` and `resolve_adapter`. Raises WeightsError if the exported
    adapter is damaged or does not fit its policy.
    """
    exported = resolve_adapter(store, run, name, base, family)
    if exported is None:
        exported = resolve(store, run, name, base, family), None
    return _playable(*exported, family, dtype, method)


def playable_start(
    start: StartingPolicy, family: ModelFamily, dtype: str, method: MethodConfig
) -> Playable:
    """Return the files of GRPO's starting policy, for an engine that loads GRPO's later versions.

    See `playable` for the other arguments and the errors.
    """
    return _playable(start.weights, start.adapter, family, dtype, method)


def _playable(
    policy: Path, adapter: Path | None, family: ModelFamily, dtype: str, method: MethodConfig
) -> Playable:
    if adapter is None or stays_adapter(dtype, rank_in(adapter)):
        return Playable(policy, adapter, policy)
    return Playable(folded(policy, adapter, family, method), None, policy)
