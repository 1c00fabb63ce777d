"""Checks that the files of a policy directory agree with each other, before they are loaded.

The checks read JSON files only. If two values do not agree, the error names both values.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awares.errors import PolicyError
from awares.family import ModelFamily, check_kind, read_config


def check_directory(path: Path, family: ModelFamily) -> None:
    """Raise PolicyError unless `path` holds a complete policy of `family`.

    The tokenizer and the processor must fit the configuration, and the directory must hold weights.
    """
    if not path.is_dir():
        raise PolicyError(
            f"{path} is not a directory; policy.base names a Hugging Face directory "
            "with config.json and model.safetensors"
        )
    config = read_config(path)
    check_kind(family, path, config)
    if not any(path.glob("*.safetensors")):
        raise PolicyError(
            f"{path} has no *.safetensors weights; copy or download the whole policy directory"
        )
    _check_tokenizer(path, config, family)
    _check_processor(path, config, family)


def check_report(path: Path, report: Mapping[str, Any]) -> None:
    """Raise PolicyError if transformers' loading report lists weights that do not fit the model.

    A weight does not fit if it is missing, if the model has no weight of this name, or if its shape
    differs.
    """
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in report.get(kind) or ()):
            raise PolicyError(
                f"the weights in {path} do not fit its config.json: {kind.replace('_', ' ')} "
                f"{names[:3]} ({len(names)} in all); "
                "take config.json and *.safetensors from one model"
            )


def set_dtype(path: Path, dtype: Any) -> None:
    """Write `dtype`, the data type of the stored weights, into config.json."""
    config = read_config(path)
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (path / "config.json").write_text(json.dumps(config, indent=2))


def _check_tokenizer(path: Path, config: Mapping[str, Any], family: ModelFamily) -> None:
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
            f"{path}: the tokenizer has ids up to {highest}, the model only {size} embeddings: "
            "they belong to different models; take both from one model"
        )
    ids = (vocab if isinstance(vocab, dict) else {}) | added
    for token, key in family.token_keys.items():
        if ids.get(token) != config.get(key):
            raise PolicyError(
                f"{path}: {token} is id {ids.get(token)} in tokenizer.json "
                f"but {config.get(key)} ({key}) in config.json; take both files from one model"
            )


def _check_processor(path: Path, config: Mapping[str, Any], family: ModelFamily) -> None:
    vision = config.get("vision_config") or {}
    name = (
        "processor_config.json"
        if (path / "processor_config.json").is_file()
        else "preprocessor_config.json"
    )
    processor = _read(path / name)
    image = processor.get("image_processor") or processor
    for ours, theirs in family.grid_keys.items():
        if ours in image and theirs in vision and image[ours] != vision[theirs]:
            raise PolicyError(
                f"{path}: {name} has {ours}={image[ours]} but config.json's vision_config has "
                f"{theirs}={vision[theirs]}: image features would not match image tokens; "
                "take both files from one model"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PolicyError(
            f"{path} is missing; copy or download the whole policy directory"
        ) from error
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path} is unreadable: {error}") from error
