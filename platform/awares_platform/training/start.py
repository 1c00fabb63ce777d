"""Finds the policy from which GRPO starts.

With LoRA:
    grpo.start    policy.dtype    GRPO trains
    base          any             a new adapter of the base policy
    sft           float32         a new adapter of the policy "sft"
    sft           bfloat16        the existing adapter of the policy "sft"

In bfloat16, the merged weights of the policy "sft" lack most of a small update.
"""

from dataclasses import dataclass
from pathlib import Path

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.config.policy import PolicyConfig
from awares_platform.store import ObjectStore
from awares_platform.training.export import adapter_key, policy_manifest
from awares_platform.training.source import PolicyName, resolve, resolve_adapter
from awares_platform.weights.adapter import rank_in


@dataclass(frozen=True, slots=True)
class StartingPolicy:
    """The verified directories of the policy from which GRPO starts.

    Example:
        StartingPolicy("base", Path("/models/qwen"), Path("/cache/policies/5d1c"))
    """

    name: PolicyName
    weights: Path
    """The directory of the policy that GRPO trains, directly or through adapters."""
    adapter: Path | None
    """The PEFT directory of the adapter that GRPO trains further, or None."""


def starting_policy(
    store: ObjectStore, run: str, start: PolicyName, policy: PolicyConfig, family: ModelFamily
) -> StartingPolicy:
    """Return the policy from which GRPO starts. `start` is grpo.start.

    Raises the errors of `resolve` and `resolve_adapter`. Raises PolicyError if GRPO would continue
    an adapter whose rank is not policy.lora_rank. Raises WeightsError if the adapter is damaged.
    """
    found = None
    if continues_adapter(policy):
        found = resolve_adapter(store, run, start, policy.base, family)
    if found is None:
        return StartingPolicy(start, resolve(store, run, start, policy.base, family), None)
    if (rank := rank_in(found[1])) != policy.lora_rank:
        raise PolicyError(
            f"the adapter of the policy {start} has rank {rank}, and policy.lora_rank is "
            f"{policy.lora_rank}: set policy.lora_rank={rank}, or run `awares {start}` again"
        )
    return StartingPolicy("base", *found)


def starting_adapter(
    store: ObjectStore, run: str, start: PolicyName, policy: PolicyConfig
) -> str | None:
    """Return the digest of the adapter that GRPO trains further, or None if there is none.

    Raises PolicyError if the adapter's manifest is damaged.
    """
    if start == "base" or not continues_adapter(policy):
        return None
    manifest = policy_manifest(store, f"{adapter_key(run, start)}/")
    return None if manifest is None else manifest["meta"]["digest"]


def continues_adapter(policy: PolicyConfig) -> bool:
    """Return whether GRPO trains the adapter of its starting policy further, if there is one."""
    return policy.lora_rank > 0 and policy.dtype == "bfloat16"
