"""Exported policies in the store: runs/<run>/policies/<name>/, whose manifest is written last.

    manifest.json   {"files": {name: blake3}, "meta": {"digest", "trained_from", ...the job's own}}

A policy without a manifest is absent. `digest` identifies the policy and `trained_from` the policy
that its training started from (identity.py), so both are known without reading the weights.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training import fit
from awares_platform.training.identity import MANIFEST, combined, content_digest, file_digests

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "model.safetensors"
_WEIGHT_SUFFIXES = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
)


def policy_key(run: str, name: str) -> str:
    """Key of an exported policy's directory in the store."""
    return f"runs/{run}/policies/{name}"


def export_policy(
    state: Mapping[str, "Tensor"],
    source: Path,
    store: ObjectStore,
    run: str,
    name: str,
    family: ModelFamily,
    meta: Mapping[str, Any] | None = None,
) -> str:
    """Publish a policy made of `state` (zero.full_state) and of every other file of `source`.

    `source` is the directory that training started from; tokenizer and processor stay byte for
    byte the same. `meta` (JSON) goes into the manifest. Returns the key of the directory.
    """
    key = policy_key(run, name)
    with tempfile.TemporaryDirectory(prefix="awares-export-") as staged:
        directory = Path(staged)
        write_policy(state, source, directory, family)
        files = file_digests(directory)
        lineage = {"digest": combined(files), "trained_from": content_digest(source)}
        manifest = {"files": files, "meta": {**(meta or {}), **lineage}}
        # Without its manifest a policy is absent, so no reader sees one that is half replaced.
        store.delete(f"{key}/{MANIFEST}")
        for file in files:
            store.upload_file(directory / file, f"{key}/{file}")
        store.put(f"{key}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    return key


def write_policy(
    state: Mapping[str, "Tensor"], source: Path, directory: Path, family: ModelFamily
) -> None:
    """Write a policy of these weights, with every other file of `source`, to an empty directory."""
    from safetensors.torch import save_file

    for file in sorted(source.iterdir()):
        is_weights = file.name.endswith(_WEIGHT_SUFFIXES)
        if file.is_file() and not is_weights and file.name != MANIFEST:
            shutil.copyfile(file, directory / file.name)
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})
    fit.set_dtype(directory, next(iter(state.values())).dtype)
    fit.check_directory(directory, family)


def read_meta(store: ObjectStore, run: str, name: str) -> dict[str, Any] | None:
    """`meta` of an exported policy; None if there is no complete one.

    Raises PolicyError if the manifest is damaged.
    """
    manifest = policy_manifest(store, f"{policy_key(run, name)}/")
    return None if manifest is None else manifest["meta"]


def policy_manifest(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """The manifest below `prefix` ("" or a key that ends in "/"); None if there is none.

    Raises PolicyError if it is damaged.
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
    """What is wrong with a manifest; empty if nothing is."""
    if not isinstance(manifest, dict):
        return "it is no JSON object"
    files, meta = manifest.get("files"), manifest.get("meta")
    if not isinstance(files, dict) or not isinstance(meta, dict):
        return "it names no files"
    return "" if meta.get("digest") == combined(files) else "its digest is not that of its files"
