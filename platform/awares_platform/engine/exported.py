"""Chooses the files with which an engine plays an exported policy.

    training         engine      files
    whole weights    any         the policy itself
    LoRA             float32     the policy, whose weights include the adapter
    LoRA             16 bits     the policy before the training, and the adapter

An engine in 16 bits rounds merged weights, and small updates of the adapter are then lost.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from awares.family import ModelFamily
from awares_platform.engine.adapters import stays_adapter
from awares_platform.store import ObjectStore
from awares_platform.training.source import PolicyName, resolve, resolve_adapter
from awares_platform.weights.adapter import CONFIG_FILE


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
    store: ObjectStore, run: str, name: PolicyName, base: str, family: ModelFamily, dtype: str
) -> Playable:
    """Return the verified files of the policy `name` for an engine with the data type `dtype`.

    Raises the errors of `resolve` and `resolve_adapter`.
    """
    exported = resolve_adapter(store, run, name, base, family)
    if exported is not None and stays_adapter(dtype, adapter_rank(exported[1])):
        return Playable(*exported)
    return Playable(resolve(store, run, name, base, family), None)


def adapter_rank(directory: Path) -> int:
    """Return the rank of the adapter in a PEFT directory."""
    return json.loads((directory / CONFIG_FILE).read_bytes())["r"]
