"""Policies: where they come from, how they are loaded, how they leave a run.

A policy is a Hugging Face directory of a Qwen2.5-VL: config.json, model.safetensors, tokenizer and processor files. In the store it
lies under runs/<run>/policies/<name>/, its manifest written last; a reader trusts only what the manifest names and what hashes right.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blake3 import blake3

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.errors import NotFound
from awares_platform.store import ObjectStore
from awares_platform.training import fit, lora

if TYPE_CHECKING:
    from torch import Tensor, nn

PolicyName = Literal["base", "sft", "awares"]

_MANIFEST = "manifest.json"
_WEIGHTS = "model.safetensors"
_SAMPLE_BYTES = 1 << 20
_ETAG = "etag "


def resolve(config: PlatformConfig, store: ObjectStore, name: PolicyName) -> Path:
    """A verified local directory of the policy: `base` from policy.base, the others from this run's exports.

    Raises PolicyError if there is none, or if it is not a complete, fitting Qwen2.5-VL directory.
    """
    path = (
        _base(config)
        if name == "base"
        else _download(store, policy_key(config.run.name, name), f"run `awares {_job(name)}` first")
    )
    fit.check_directory(path)
    return path


def pinned(config: PlatformConfig) -> PlatformConfig:
    """`config` with a local policy.base made absolute: Ray Train's workers run in directories of their own."""
    path = Path(config.policy.base).expanduser()
    if config.policy.base == "mini" or not path.is_dir():
        return config
    return config.model_copy(
        update={"policy": config.policy.model_copy(update={"base": str(path.resolve())})}
    )


def policy_key(run: str, name: str) -> str:
    """Key of an exported policy's directory in the store."""
    return f"runs/{run}/policies/{name}"


def load_policy(path: Path, config: PlatformConfig) -> "nn.Module":
    """The model in policy.dtype, on the CPU, ready to train: LoRA adapters on a frozen base when policy.lora_rank > 0, else the language
    model, and with policy.train_vision the vision tower.

    Raises PolicyError naming the tensors if the weights are not those of the architecture that config.json describes.
    """
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    fit.check_directory(path)
    settings = config.policy
    load: Any = (
        Qwen2_5_VLForConditionalGeneration.from_pretrained
    )  # returns a pair with output_loading_info, which its annotation omits
    options = {
        "dtype": getattr(torch, settings.dtype),
        "attn_implementation": settings.attn,
        "local_files_only": True,
    }
    try:
        model, report = load(path, output_loading_info=True, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise PolicyError(f"{path} does not load as Qwen2.5-VL: {error}") from error
    fit.check_report(path, report)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if not settings.train_vision:
        model.get_submodule("model.visual").requires_grad_(False)
    if settings.lora_rank:
        lora.attach(
            model, settings.lora_rank, settings.lora_alpha, settings.lora_targets, config.run.seed
        )
    return model


def load_processor(path: Path, config: PlatformConfig) -> Any:
    """The policy's Qwen2.5-VL processor (tokenizer and image processor), with the method's pixel limits."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise PolicyError(f"{path} has no usable processor: {error}") from error
    processor.image_processor.size = {
        "shortest_edge": config.method.min_pixels,
        "longest_edge": config.method.max_pixels,
    }
    return processor


def export_policy(
    state: Mapping[str, "Tensor"],
    source: Path,
    store: ObjectStore,
    run: str,
    name: str,
    meta: Mapping[str, Any] | None = None,
) -> str:
    """Publish a policy: `state` (zero.full_state) with every other file of `source`, the directory that training started from.

    Tokenizer and processor stay byte for byte those of the base. Returns the key of the directory. `meta` (JSON) goes into the manifest.
    """
    key = policy_key(run, name)
    with tempfile.TemporaryDirectory(prefix="awares-export-") as directory:
        write_policy(state, source, Path(directory))
        files = {path.name: _digest(path) for path in sorted(Path(directory).iterdir())}
        store.delete(
            f"{key}/{_MANIFEST}"
        )  # from here to the last line the policy counts as absent, never as half replaced
        for file in files:
            store.upload_file(Path(directory, file), f"{key}/{file}")
        store.put(
            f"{key}/{_MANIFEST}",
            json.dumps({"files": files, "meta": dict(meta or {})}, indent=1).encode(),
        )
    return key


def write_policy(state: Mapping[str, "Tensor"], source: Path, directory: Path) -> None:
    """A policy of these weights in an empty directory, with every other file of `source`."""
    from safetensors.torch import save_file

    for file in sorted(source.iterdir()):
        if file.is_file() and not _is_weights(file.name) and file.name != _MANIFEST:
            shutil.copyfile(file, directory / file.name)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        directory / _WEIGHTS,
        metadata={"format": "pt"},
    )
    fit.set_dtype(directory, next(iter(state.values())).dtype)
    fit.check_directory(directory)


def read_meta(store: ObjectStore, run: str, name: str) -> dict[str, Any] | None:
    """`meta` of an exported policy, None if there is no complete one. Raises PolicyError for a damaged manifest."""
    manifest = _manifest(store, f"{policy_key(run, name)}/")
    return None if manifest is None else manifest["meta"]


def fingerprint(path: Path) -> str:
    """Short digest that tells policy directories apart: their configuration, and size and end of their weights."""
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for weights in sorted(path.glob("*.safetensors")):
        with weights.open("rb") as file:
            size = weights.stat().st_size
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(f"{weights.name} {size} ".encode() + file.read())
    return digest.hexdigest()[:16]


def interface(path: Path) -> tuple[str, str]:
    """Hex blake3 of what turns images into pixels, and of what turns a conversation into ids: policies with the same ones read alike."""
    template = (
        "chat_template.jinja",
        "chat_template.json",
        "tokenizer.json",
        "tokenizer_config.json",
    )
    return _joint(path, "processor_config.json", "preprocessor_config.json"), _joint(
        path, *template
    )


def _joint(path: Path, *names: str) -> str:
    held = [(name, (path / name).read_bytes()) for name in names if (path / name).is_file()]
    return blake3(
        b"".join(name.encode() + len(data).to_bytes(8, "little") + data for name, data in held)
    ).hexdigest()


def _job(name: str) -> str:
    return {"sft": "sft", "awares": "grpo"}[name]


def _base(config: PlatformConfig) -> Path:
    base = config.policy.base
    if base == "mini":
        from awares.mini import POLICY

        return Path(POLICY)
    if base.startswith("s3://"):
        store = ObjectStore.from_config(config.store.model_copy(update={"url": base.rstrip("/")}))
        return _download(store, "", "check policy.base", foreign="/runs/" not in base)
    if Path(base).expanduser().is_dir():
        return Path(base).expanduser().resolve()
    return _hub(base)


def _hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub raises its own, httpx's and OS errors for one and the same cause: it is not there
        raise PolicyError(
            f"policy.base={repository!r} is no local directory, and no Hugging Face model that can be reached ({error}); write mini, a "
            "directory, an s3:// address or a model id"
        ) from error


def _download(store: ObjectStore, key: str, remedy: str, foreign: bool = False) -> Path:
    """Mirror a stored policy into the cache, whole or not at all, under the digest of what it consists of. Only one that no run of ours
    wrote (`foreign`) may lack a manifest."""
    prefix = f"{key}/" if key else ""
    files = _named(store, prefix) or (_listed(store, prefix) if foreign else {})
    if not files:
        raise PolicyError(
            f"there is no complete policy at {f'{store.config.url}/{key}'.rstrip('/')}: {remedy}"
        )
    target = (
        _cache()
        / hashlib.sha256(json.dumps([store.config.url, key, files]).encode()).hexdigest()[:24]
    )
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        for name, digest in files.items():
            store.download_file(f"{prefix}{name}", staged / name)
            if not digest.startswith(_ETAG) and _digest(staged / name) != digest:
                raise PolicyError(
                    f"{store.config.url}/{prefix}{name} is damaged: its hash is not the manifest's; export the policy again"
                )
        staged.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process installed the same policy first
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _named(store: ObjectStore, prefix: str) -> dict[str, str]:
    """File names and SHA-256 as the manifest has them; empty without one."""
    manifest = _manifest(store, prefix)
    return {} if manifest is None else manifest["files"]


def _manifest(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    key = f"{prefix}{_MANIFEST}"
    try:
        manifest = json.loads(store.get(key))
        if (
            isinstance(manifest, dict)
            and isinstance(manifest.get("files"), dict)
            and isinstance(manifest.get("meta"), dict)
        ):
            return manifest
        reason = "it names no files"
    except NotFound:
        return None
    except ValueError as error:
        reason = str(error)
    raise PolicyError(
        f"{store.config.url}/{key} is no manifest of a policy ({reason}); delete it and export the policy again"
    )


def _listed(store: ObjectStore, prefix: str) -> dict[str, str]:
    """File names and etags of a directory that somebody copied into the store."""
    found = {info.key.removeprefix(prefix): f"{_ETAG}{info.etag}" for info in store.list(prefix)}
    return {name: etag for name, etag in sorted(found.items()) if "/" not in name}


def _cache() -> Path:
    return Path(os.environ.get("AWARES_CACHE") or Path.home() / ".cache" / "awares") / "policies"


def _is_weights(name: str) -> bool:
    return name.endswith(
        (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt")
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
