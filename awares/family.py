"""A model family holds every property in which the supported vision-language models differ.

The configuration names the family as `policy.family = "module:attribute"`. All code reads these
properties from the family, and never names a model:

    chat ---------------- awares.chat.ChatFormat builds prompts from these special tokens
    limits -------------- awares.tokens counts visual tokens with these patch and merge sizes
    processor_options --- the trainer and vLLM resize images within these limits
    load_model, tower --- the trainer loads the model and freezes the vision tower
    vllm_module --------- on CPUs, this module is imported once, before engines are forked
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from awares.errors import PolicyError
from awares.tokens import VisionLimits


@dataclass(frozen=True, slots=True)
class ChatTokens:
    """The special tokens of a family's chat layout, as text.

    Example:
        ChatTokens(
            start="<|im_start|>",
            end="<|im_end|>",
            image_start="<|vision_start|>",
            image="<|image_pad|>",
            image_end="<|vision_end|>",
            stops=("<|im_end|>", "<|endoftext|>"),
            blocked=("<|im_start|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
        )
    """

    start: str
    """Starts a message."""
    end: str
    """Ends a message."""
    image_start: str
    """Stands before `image`."""
    image: str
    """The placeholder of one image."""
    image_end: str
    """Stands after `image`."""
    stops: tuple[str, ...]
    """The tokens that end a turn. The first is `end`."""
    blocked: tuple[str, ...]
    """The tokens that must never be sampled."""


class ModelFamily(Protocol):
    """The properties that distinguish one family of vision-language models from the others.

    Only the methods may import torch and transformers, so a family is cheap to import.

    Example:
        class Qwen2VL(Qwen25VL):
            \"\"\"Qwen2-VL: the same layout and processor, with another model class.\"\"\"

            name = "Qwen2-VL"
            model_type = "qwen2_vl"
            architecture = "Qwen2VLForConditionalGeneration"
            vllm_module = "vllm.model_executor.models.qwen2_vl"
    """

    name: str
    """The family's name in messages to users."""
    model_type: str
    """The value of `model_type` in config.json."""
    architecture: str
    """The name of the model class in transformers, in vLLM and in config.json (`architectures`)."""
    vllm_module: str
    """The module in which vLLM defines the model class."""
    tower: str
    """The module path of the vision tower in the transformers model."""
    lora_targets: tuple[str, ...]
    """The linear layers that may get a LoRA adapter: the last part of each layer's module path."""
    chat: ChatTokens
    """The special tokens of the chat layout."""
    token_keys: Mapping[str, str]
    """Maps a special token to the key in config.json that holds the token's id."""
    grid_keys: Mapping[str, str]
    """Maps each size's name in the image processor to the size's key in vision_config."""

    def limits(self, min_pixels: int, max_pixels: int) -> VisionLimits:
        """Return the processor's limits, where the two arguments limit the area of an image."""
        ...

    def processor_options(self, limits: VisionLimits) -> dict[str, Any]:
        """Return the image processor's keyword arguments that limit the area of an image."""
        ...

    def load_model(self, path: Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """Load the model from `path`. Return it, and the loading report of transformers."""
        ...

    def positions(
        self, ids: Sequence[int], image_token_id: int, grids: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, int]]:
        """Return the temporal, row and column position of each token.

        `ids` holds one image token for each visual token. `grids` holds the number of rows and
        columns of each image, in visual tokens.
        """
        ...

    def current_name(self, name: str) -> str:
        """Translate `name`, a weight's name in a checkpoint, to its name in transformers."""
        ...


def check_kind(family: ModelFamily, path: Path, config: Mapping[str, Any]) -> None:
    """Raise PolicyError unless `config` describes a model of the family.

    `config` is the content of `path`/config.json.
    """
    found = config.get("model_type")
    if found != family.model_type:
        raise PolicyError(
            f"{path}/config.json has model_type {found!r}, but policy.family expects "
            f"{family.model_type!r} ({family.name}): set policy.base to a {family.name}, "
            "or policy.family to the family of this model"
        )
    architectures = config.get("architectures") or [family.architecture]
    if family.architecture not in architectures:
        raise PolicyError(
            f"{path}/config.json describes a {architectures[0]}, but {family.name} policies are "
            f"trained and served as {family.architecture}: choose another policy.base"
        )


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of `path`/config.json. Raises PolicyError if the file is unreadable."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise PolicyError(
            f"{file} is missing; policy.base must name a whole Hugging Face directory"
        ) from error
    except (OSError, ValueError) as error:
        raise PolicyError(f"{file} is unreadable: {error}") from error
    if not isinstance(config, dict):
        raise PolicyError(f"{file} is unreadable: it holds no JSON object")
    return config


def in_tower(family: ModelFamily, name: str) -> bool:
    """Return whether the weight or module `name` belongs to the vision tower.

    `name` may be a current name in transformers, or a name from an old checkpoint.
    """
    return family.tower.rpartition(".")[2] in name.split(".")
