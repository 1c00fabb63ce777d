"""Chooses the files with which an engine plays an exported policy.

    training         engine      files
    whole weights    any         the policy itself
    LoRA             float32     the policy before the training, with the adapter added in float32
    LoRA             16 bits     the policy before the training, and the adapter

The merged weights of a LoRA policy are rounded to policy.dtype. In 16 bits, small updates of the
adapter are lost by this rounding. No engine therefore plays the merged weights.
"""

from dataclasses import dataclass
from pathlib import Path

from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.engine.adapters import stays_adapter
from awares_platform.store import ObjectStore
from awares_platform.training.merge import folded
from awares_platform.training.source import PolicyName, resolve, resolve_adapter
from awares_platform.weights.adapter import rank_in


@dataclass(frozen=True, slots=True)
class Playable:
    """The directories from which an engine plays a policy.

    `adapter` is the PEFT directory of an adapter that the engine plays on `policy`. It is None if
    `policy` needs no adapter.

    Example:
        Playable(Path("/root/.cache/awares/policies/5d1c"), adapter=None)
    """

    policy: Path
    adapter: Path | None


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

    See `merge.folded` for `method`. Raises the errors of `resolve` and `resolve_adapter`. Raises
    WeightsError if the exported adapter is damaged or does not fit its policy.
    """
    exported = resolve_adapter(store, run, name, base, family)
    if exported is None:
        return Playable(resolve(store, run, name, base, family), None)
    if stays_adapter(dtype, rank_in(exported[1])):
        return Playable(*exported)
    return Playable(folded(*exported, family, method), None)
