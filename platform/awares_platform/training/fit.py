"""Does a policy directory fit together? Checks on its JSON files alone, before anything is loaded; each error names both sides."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awares.errors import PolicyError

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
_GEOMETRY = {
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "temporal_patch_size": "temporal_patch_size",
}
_PLACEHOLDERS = {
    "<|image_pad|>": "image_token_id",
    "<|vision_start|>": "vision_start_token_id",
    "<|vision_end|>": "vision_end_token_id",
}


def check_directory(path: Path) -> None:
    """Raise PolicyError unless `path` holds a Qwen2.5-VL whose config, tokenizer, processor and weights belong together."""
    if not path.is_dir():
        raise PolicyError(
            f"{path} is not a directory; policy.base names a Hugging Face directory with config.json and model.safetensors"
        )
    config = _read(path / "config.json")
    found = (config.get("architectures") or ["none"])[0]
    if found != ARCHITECTURE:
        raise PolicyError(
            f"{path}/config.json describes a {found}; awares trains and serves {ARCHITECTURE}: choose a Qwen2.5-VL policy"
        )
    if not any(path.glob("*.safetensors")):
        raise PolicyError(
            f"{path} has no *.safetensors weights; copy or download the whole policy directory"
        )
    _check_tokenizer(path, config)
    _check_processor(path, config)


def check_report(path: Path, report: Mapping[str, Any]) -> None:
    """Raise PolicyError if transformers' loading report says that weights are missing, left over or of another shape."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in report.get(kind) or ()):
            raise PolicyError(
                f"the weights in {path} do not fit its config.json: {kind.replace('_', ' ')} {names[:3]} ({len(names)} in all); "
                "config.json and *.safetensors are of different models"
            )


def set_dtype(path: Path, dtype: Any) -> None:
    """Let config.json say in which precision the weights beside it are stored."""
    config = _read(path / "config.json")
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (path / "config.json").write_text(json.dumps(config, indent=2))


def _check_tokenizer(path: Path, config: Mapping[str, Any]) -> None:
    tokenizer = _read(path / "tokenizer.json")
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    vocab = (tokenizer.get("model") or {}).get("vocab") or {}
    highest = max(
        [*added.values(), *(vocab.values() if isinstance(vocab, dict) else [len(vocab) - 1])],
        default=-1,
    )
    size = (config.get("text_config") or config).get("vocab_size", 0)
    if highest >= size:
        raise PolicyError(
            f"{path}: the tokenizer has ids up to {highest}, the model only {size} embeddings: they are of different models"
        )
    for token, key in _PLACEHOLDERS.items():
        if added.get(token, vocab.get(token) if isinstance(vocab, dict) else None) != config.get(
            key
        ):
            raise PolicyError(
                f"{path}: {token} is id {added.get(token)} in tokenizer.json but {config.get(key)} ({key}) in config.json"
            )


def _check_processor(path: Path, config: Mapping[str, Any]) -> None:
    vision = config.get("vision_config") or {}
    name = (
        "processor_config.json"
        if (path / "processor_config.json").is_file()
        else "preprocessor_config.json"
    )
    processor = _read(path / name)
    image = processor.get("image_processor") or processor
    for ours, theirs in _GEOMETRY.items():
        if ours in image and theirs in vision and image[ours] != vision[theirs]:
            raise PolicyError(
                f"{path}: {name} has {ours}={image[ours]} but config.json's vision_config has {theirs}={vision[theirs]}: image features "
                "would not match image tokens; take both files from one model"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise PolicyError(
            f"{path} is missing; copy or download the whole policy directory"
        ) from error
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path} is unreadable: {error}") from error
