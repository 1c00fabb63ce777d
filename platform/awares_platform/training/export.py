"""Exports policies to runs/<run>/policies/<name>/ in the store, and reads their manifests.

The directory <name> always holds all weights. If training used LoRA, these are merged weights: the
sums of the base policy and the adapter in float32, rounded once. The job then also exports
<name>-adapter. This is a PEFT directory, from which merge.py can make the merged weights again.

    manifest.json   {"files": {name: blake3}, "meta": {"digest", "trained_from", ...the job's own}}

The manifest is written last, and readers treat a policy without a manifest as absent. `digest` is
the digest of the policy itself. `trained_from` is the digest of the policy from which training
started (see identity.py). A reader gets these digests from the manifest, without reading the
weights. After a LoRA training, the policy has merged weights, and `adapter` is true in its
manifest. Such a policy is complete only together with its adapter, because engines load the
starting policy and the adapter instead of the merged weights.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training import fit, inputs
from awares_platform.training.identity import MANIFEST, combined, content_digest, file_digests
from awares_platform.weights.adapter import write_peft
from awares_platform.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "model.safetensors"
_ADAPTER = {"adapter": True}
_WEIGHT_SUFFIXES = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
)


def policy_key(run: str, name: str) -> str:
    """Return the key of an exported policy's directory in the store."""
    return f"runs/{run}/policies/{name}"


def adapter_key(run: str, name: str) -> str:
    """Return the key of the PEFT directory that belongs to the policy `name`."""
    return policy_key(run, f"{name}-adapter")


def export_policy(
    state: Mapping[str, "Tensor"],
    source: Path,
    store: ObjectStore,
    run: str,
    name: str,
    family: ModelFamily,
    method: MethodConfig,
    meta: Mapping[str, Any] | None = None,
    *,
    adapter: bool = False,
) -> str:
    """Publish a policy with the weights `state` (from zero.full_state). Return its key.

    - `source` is the directory of the starting policy.
    - `meta` holds JSON values for the manifest.
    - If `adapter` is true, `export_adapter` must follow.
    """
    key = policy_key(run, name)
    # An older adapter does not belong to these weights. Without its manifest it counts as absent.
    store.delete(f"{adapter_key(run, name)}/{MANIFEST}")
    with tempfile.TemporaryDirectory(prefix="awares-export-") as staged:
        directory = Path(staged)
        write_policy(state, source, directory, family, method)
        _upload(directory, store, key, source, {**(meta or {}), **_ADAPTER} if adapter else meta)
    return key


def export_adapter(
    adapter: Mapping[str, "Tensor"],
    scale: float,
    source: Path,
    start: str,
    store: ObjectStore,
    run: str,
    name: str,
    family: ModelFamily,
    method: MethodConfig,
    meta: Mapping[str, Any] | None = None,
) -> str:
    """Publish the LoRA adapter of the policy `name` as a PEFT directory. Return its key.

    `start` names the starting policy in `source`: "base" or "sft". Call `export_policy` first,
    because it removes an older adapter.
    """
    key = adapter_key(run, name)
    with tempfile.TemporaryDirectory(prefix="awares-export-") as staged:
        directory = Path(staged)
        write_peft(adapter, scale, directory, start)
        inputs.write(directory, family, method)
        _upload(directory, store, key, source, {**(meta or {}), "start": start})
    return key


def delete_policy(store: ObjectStore, run: str, name: str) -> None:
    """Delete an exported policy and its adapter. A missing policy is no error."""
    for key in (adapter_key(run, name), policy_key(run, name)):
        store.delete(f"{key}/{MANIFEST}")
        store.delete_prefix(f"{key}/")


def _upload(
    directory: Path, store: ObjectStore, key: str, source: Path, meta: Mapping[str, Any] | None
) -> None:
    files = file_digests(directory)
    lineage = {"trained_from": content_digest(source), **(meta or {}), "digest": combined(files)}
    manifest = {"files": files, "meta": lineage}
    # Delete the manifest first, so that no reader sees a mixture of old and new files.
    store.delete(f"{key}/{MANIFEST}")
    for file in files:
        store.upload_file(directory / file, f"{key}/{file}")
    store.put(f"{key}/{MANIFEST}", json.dumps(manifest, indent=1).encode())


def write_policy(
    state: Mapping[str, "Tensor"],
    source: Path,
    directory: Path,
    family: ModelFamily,
    method: MethodConfig,
) -> None:
    """Write the weights `state` to an empty directory, and copy the other files from `source`.

    Weights keep the names that they have in `source`, so that other tools can load the policy like
    its base. The input settings of `method` are also recorded.
    """
    from safetensors.torch import save_file

    for file in sorted(source.iterdir()):
        is_weights = file.name.endswith(_WEIGHT_SUFFIXES)
        if file.is_file() and not is_weights and file.name != MANIFEST:
            shutil.copyfile(file, directory / file.name)
    names = {family.current_name(name): name for name in Checkpoint(source)}
    tensors = {names.get(name, name): tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})
    fit.set_dtype(directory, next(iter(state.values())).dtype)
    inputs.write(directory, family, method)
    fit.check_directory(directory, family)


def read_meta(store: ObjectStore, run: str, name: str) -> dict[str, Any] | None:
    """Return `meta` from an exported policy's manifest, or None if there is no complete policy.

    Also return None for merged weights whose adapter is missing. Raises PolicyError if a manifest
    is damaged.
    """
    manifest = policy_manifest(store, f"{policy_key(run, name)}/")
    return None if manifest is None or lacks_adapter(store, run, name) else manifest["meta"]


def lacks_adapter(store: ObjectStore, run: str, name: str) -> bool:
    """Return whether the policy `name` consists of merged weights whose adapter is missing.

    An export that stopped half way leaves such a policy. Raises PolicyError if a manifest is
    damaged.
    """
    manifest = policy_manifest(store, f"{policy_key(run, name)}/")
    if manifest is None or not manifest["meta"].get("adapter"):
        return False
    return policy_manifest(store, f"{adapter_key(run, name)}/") is None


def policy_manifest(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """Return the manifest below `prefix`, or None if there is no manifest.

    `prefix` is "" or a key that ends in "/". Raises PolicyError if the manifest is damaged.
    """
    key = f"{prefix}{MANIFEST}"
    try:
        manifest = json.loads(store.get(key))
    except NotFound:
        return None
    except ValueError as error:
        reason = str(error)
    else:
        reason = _fault(manifest)
        if not reason:
            return manifest
    remedy = "delete it and export the policy again"
    raise PolicyError(f"{store.config.url}/{key} is no manifest of a policy ({reason}); {remedy}")


def _fault(manifest: Any) -> str:
    """Return the fault of a manifest as text, or "" if the manifest is valid."""
    if not isinstance(manifest, dict):
        return "it is no JSON object"
    files, meta = manifest.get("files"), manifest.get("meta")
    if not isinstance(files, dict) or not isinstance(meta, dict):
        return "it names no files"
    return "" if meta.get("digest") == combined(files) else "its digest is not that of its files"
