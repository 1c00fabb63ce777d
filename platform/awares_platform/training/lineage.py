"""Checks that a policy's starting policy has not changed since the policy was trained.

The manifest of a trained policy records the digest of its starting policy as `trained_from`.
"""

from awares.errors import MissingPolicy, PolicyError
from awares_platform.store import ObjectStore
from awares_platform.training.export import policy_key, read_meta
from awares_platform.training.source import JOBS, PolicyName, base_digest

_SHOWN = 12


def check_lineage(
    store: ObjectStore, run: str, name: PolicyName, base: str, start: PolicyName
) -> None:
    """Raise PolicyError if the policy `name` is stale, or if its starting policy is stale.

    `base` is policy.base, and `start` is grpo.start. The error is MissingPolicy if `awares sft` is
    enough to replace the stale policy.
    """
    if name == "base":
        return
    before: PolicyName = start if name == "awares" else "base"
    _check_link(store, run, name, base, before)
    try:
        check_lineage(store, run, before, base, start)
    except MissingPolicy as error:
        if read_meta(store, run, name) is None:
            raise
        # It is not enough to train the starting policy anew: the policy `name` would then be stale.
        raise PolicyError(f"{error}. After a new training, {remedy(run, name)}") from error


def _check_link(
    store: ObjectStore, run: str, name: PolicyName, base: str, before: PolicyName
) -> None:
    meta = read_meta(store, run, name)
    if meta is None:
        return
    now = policy_digest(store, run, before, base)
    if now is None or now == meta["trained_from"]:
        return
    origin = f"policy.base={base!r}" if before == "base" else f"its policy {before!r}"
    stale = MissingPolicy if name == "sft" else PolicyError
    raise stale(
        f"run {run!r}: policy {name!r} was trained from {meta['trained_from'][:_SHOWN]}, but "
        f"{origin} is {now[:_SHOWN]} now: {remedy(run, name)}"
    )


def policy_digest(store: ObjectStore, run: str, name: PolicyName, base: str) -> str | None:
    """Return the current digest of the policy `name`, or None if the run has no such policy."""
    if name == "base":
        return base_digest(store.config, base)
    meta = read_meta(store, run, name)
    return None if meta is None else meta["digest"]


def remedy(run: str, name: PolicyName) -> str:
    """Return advice on how to replace the stale policy `name`."""
    if name == "sft":
        return "run `awares sft` again, or restore policy.base"
    stale = f"{policy_key(run, name)}/ and runs/{run}/checkpoints/grpo/"
    return f"delete {stale} from the store and run `{JOBS[name]}` again, or choose another run.name"
