"""Finds a policy by its name, and returns a verified local directory with the policy's files.

    base          mini | local directory | s3:// directory | Hugging Face model id
    sft, awares   runs/<run>/policies/<name>/ in the store, where the run's jobs export them

A policy in a store is downloaded again only if its content has changed.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from awares.errors import MissingPolicy, PolicyError
from awares.family import ModelFamily
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.training import fit
from awares_platform.training.export import adapter_key, lacks_adapter, policy_key, policy_manifest
from awares_platform.training.identity import (
    cache_directory,
    combined,
    content_digest,
    file_digest,
)

log = logging.getLogger(__name__)

PolicyName = Literal["base", "sft", "awares"]

JOBS = {"sft": "awares sft", "awares": "awares grpo"}
"""Maps the name of each trained policy to the command that trains it."""

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_ETAG = "etag "
_STAGED = ".staged-"
_STAGED_BEFORE = f"tmp{'[a-z0-9_]' * 8}"
"""The pattern of `tempfile`'s own names, which older releases gave to staging directories."""
_ABANDONED_S = 86_400.0


def resolve(store: ObjectStore, run: str, name: PolicyName, base: str, family: ModelFamily) -> Path:
    """Return a local, verified directory of the policy `name`.

    `base` is policy.base. Raises MissingPolicy if the run has not exported the policy yet. Raises
    PolicyError if the policy is unusable.
    """
    if name == "base":
        path = _base(store.config, base)
    else:
        path = _download(store, policy_key(run, name), f"run `{JOBS[name]}` first")
    fit.check_directory(path, family)
    return path


def resolve_adapter(
    store: ObjectStore, run: str, name: PolicyName, base: str, family: ModelFamily
) -> tuple[Path, Path] | None:
    """Return two verified directories: the starting policy of the LoRA training, and the adapter.

    Return None for a policy without LoRA. Raises MissingPolicy if a LoRA policy's adapter is
    missing, and PolicyError if its starting policy has changed.
    """
    if name == "base":
        return None
    key = adapter_key(run, name)
    if lacks_adapter(store, run, name):
        raise MissingPolicy(
            f"{store.config.url}/{key} is missing, and without this adapter the policy {name} is "
            f"incomplete: run `{JOBS[name]}` first"
        )
    manifest = policy_manifest(store, f"{key}/")
    if manifest is None:
        return None
    meta = manifest["meta"]
    source = resolve(store, run, meta["start"], base, family)
    if content_digest(source) != meta["trained_from"]:
        raise PolicyError(
            f"{store.config.url}/{key} is an adapter of another policy {meta['start']} than the "
            f"present one ({source}); train it again, or restore the policy"
        )
    return source, _download(store, key, f"run `{JOBS[name]}` first")


def base_digest(store: StoreConfig, base: str, family: ModelFamily | None = None) -> str:
    """Return the digest of the files of `base`, which is policy.base.

    An s3:// base with a manifest is not downloaded. Other files are checked as in `resolve`, unless
    `family` is None. Raises the same errors as `resolve`.
    """
    if base.startswith("s3://"):
        manifest = policy_manifest(_store_of(store, base), "")
        if manifest is not None:
            return combined(manifest["files"])
    directory = _base(store, base)
    if family is not None:
        fit.check_directory(directory, family)
    return content_digest(directory)


def pinned(policy: PolicyConfig) -> PolicyConfig:
    """Return `policy`, but with an absolute path if `policy.base` is a local directory.

    Ray Train's workers run in other directories, so a relative path would not lead to the policy.
    """
    path = Path(policy.base).expanduser()
    if policy.base == "mini" or not path.is_dir():
        return policy
    return policy.model_copy(update={"base": str(path.resolve())})


def _base(store: StoreConfig, base: str) -> Path:
    if base == "mini":
        from awares.mini import POLICY

        return Path(POLICY)
    if base.startswith("s3://"):
        elsewhere, foreign = _store_of(store, base), "/runs/" not in base
        return _download(elsewhere, "", "check policy.base", foreign=foreign)
    if Path(base).expanduser().is_dir():
        return Path(base).expanduser().resolve()
    return _hub(base)


def _store_of(store: StoreConfig, base: str) -> ObjectStore:
    """Return the store at the address `base`, with the endpoint and credentials of `store`."""
    return ObjectStore.from_config(store.model_copy(update={"url": base.rstrip("/")}))


def _hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    log.info("fetching policy.base %s from Hugging Face, or from its cache here", repository)
    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    # Catch every exception, because the possible errors of a download have no narrower base class.
    except Exception as error:
        raise PolicyError(
            f"policy.base={repository!r} is no local directory, and no Hugging Face model that can "
            f"be reached ({error}); set it to mini, a directory, an s3:// address or a model id"
        ) from error


def _download(store: ObjectStore, key: str, remedy: str, foreign: bool = False) -> Path:
    """Download a stored policy into the cache, and return its directory there.

    A policy is `foreign` if no run has exported it; it may then lack a manifest. A failed download
    leaves no directory.
    """
    prefix = f"{key}/" if key else ""
    files = _named(store, prefix) or (_listed(store, prefix) if foreign else {})
    if not files:
        address = f"{store.config.url}/{key}".rstrip("/")
        # Raise MissingPolicy only for a policy that a job of the run can still export.
        absent = PolicyError if foreign else MissingPolicy
        raise absent(f"there is no complete policy at {address}: {remedy}")

    def fetch(directory: Path) -> None:
        for name, digest in files.items():
            _fetch(store, prefix, name, digest, directory)

    return installed(_entry(store.config.url, key, files), fetch)


def installed(name: str, write: Callable[[Path], None]) -> Path:
    """Return the directory `name` of the local cache of policies.

    If the directory is missing, let `write` fill an empty directory, and then rename it. A failure
    leaves no directory.
    """
    target = cache_directory() / "policies" / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(target.parent)
    staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=target.parent))
    try:
        write(staged)
        staged.rename(target)
    except OSError:
        # Another process may have installed the same policy first.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _delete_abandoned(policies: Path) -> None:
    """Delete the staging directories that no process has written to for a day.

    The cache may be shared by several machines, so process ids cannot tell which installs are live.
    """
    for staged in (*policies.glob(f"{_STAGED}*"), *policies.glob(_STAGED_BEFORE)):
        # Another install may rename or delete the directory, or it may belong to another user.
        with contextlib.suppress(OSError):
            written = max(path.stat().st_mtime for path in (staged, *staged.iterdir()))
            if time.time() - written > _ABANDONED_S:
                log.info("deleting %s, which a killed process left", staged)
                shutil.rmtree(staged)


def _fetch(store: ObjectStore, prefix: str, name: str, digest: str, directory: Path) -> None:
    """Download one file. Raise PolicyError if the file does not have the digest `digest`.

    `digest` may also be an etag, which is not checked.
    """
    store.download_file(f"{prefix}{name}", directory / name)
    if not digest.startswith(_ETAG) and file_digest(directory / name) != digest:
        raise PolicyError(
            f"{store.config.url}/{prefix}{name} is damaged: its hash is not the manifest's; "
            "export the policy again"
        )


def _entry(url: str, key: str, files: dict[str, str]) -> str:
    """Return a policy's name in the cache. `files` maps file names to digests or etags."""
    return hashlib.sha256(json.dumps([url, key, files]).encode()).hexdigest()[:24]


def _named(store: ObjectStore, prefix: str) -> dict[str, str]:
    """Return the manifest's digest of each file, or an empty dict if there is no manifest."""
    manifest = policy_manifest(store, prefix)
    return {} if manifest is None else manifest["files"]


def _listed(store: ObjectStore, prefix: str) -> dict[str, str]:
    """Return the etag of each file directly below `prefix`, by file name."""
    found = {info.key.removeprefix(prefix): f"{_ETAG}{info.etag}" for info in store.list(prefix)}
    return {name: etag for name, etag in sorted(found.items()) if "/" not in name}
