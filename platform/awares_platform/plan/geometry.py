"""Reads the sizes of a Qwen2.5-VL model.

From these sizes, the module computes the number of parameters, the number of adapter parameters,
and the bytes of KV cache per token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awares.errors import ConfigError, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.family import ModelFamily, check_kind, read_config

_REPOSITORY = re.compile(r"(?:[^/]+/)?Qwen2\.5-VL-(\d+B)(?:-Instruct)?")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of the language model and of the vision tower.

    The names are short forms of the names in config.json. The prefix `v_` marks the vision tower.

    Example:
        KNOWN["7B"].parameters  # 8292166656
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool
    """Whether the embedding and the output head share one matrix."""
    v_hidden: int = 1280
    v_depth: int = 32
    v_intermediate: int = 3420
    patch: int = 14
    """Height and width of a patch in pixels."""
    merge: int = 2
    """`merge` x `merge` patches become one visual token."""
    v_temporal: int = 2
    """Number of frames in a patch."""

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self.hidden // self.heads

    @property
    def kv_width(self) -> int:
        """The width of one token's keys in one layer. The values have the same width."""
        return self.kv_heads * self.head_dim

    def linear(self) -> dict[str, tuple[int, int]]:
        """Return the (input width, output width) of each linear layer in a decoder layer.

        The keys of the result are the valid names in policy.lora_targets.
        """
        hidden, kv, wide = self.hidden, self.kv_width, self.intermediate
        attention = {
            "q_proj": (hidden, hidden),
            "k_proj": (hidden, kv),
            "v_proj": (hidden, kv),
            "o_proj": (hidden, hidden),
        }
        return attention | {
            "gate_proj": (hidden, wide),
            "up_proj": (hidden, wide),
            "down_proj": (wide, hidden),
        }

    @property
    def layer_parameters(self) -> int:
        """The number of parameters of one decoder layer.

        The count covers the linear layers, the biases of q, k and v, and two norms.
        """
        return (
            sum(a * b for a, b in self.linear().values())
            + self.hidden
            + 2 * self.kv_width
            + 2 * self.hidden
        )

    @property
    def embedding_parameters(self) -> int:
        """The number of parameters of the embedding and the output head.

        If the embedding and the output head share one matrix, the matrix counts once.
        """
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def language_parameters(self) -> int:
        """The number of parameters of the language model, with embedding and output head."""
        return self.layers * self.layer_parameters + self.hidden + self.embedding_parameters

    @property
    def vision_parameters(self) -> int:
        """The number of parameters of the vision tower: patch embedding, blocks and merger.

        A block has two norms, qkv, proj and a gated MLP. All linear layers of a block have biases.
        """
        width, wide, merged = self.v_hidden, self.v_intermediate, self.v_hidden * self.merge**2
        block = 2 * width + 4 * (width * width + width) + 3 * width * wide + 2 * wide + width
        merger = width + merged * merged + merged + merged * self.hidden + self.hidden
        return 3 * self.v_temporal * self.patch**2 * width + self.v_depth * block + merger

    @property
    def parameters(self) -> int:
        """The number of parameters of the whole model."""
        return self.language_parameters + self.vision_parameters

    def adapter_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Return the number of parameters of LoRA adapters. Empty `targets` mean all linear layers.

        Raises ConfigError for an unknown target.

        Source: Hu et al., arXiv 2106.09685, section 4.1.
        """
        linear = self.linear()
        targets = targets or [*linear]
        unknown = [name for name in targets if name not in linear]
        if unknown:
            raise ConfigError(
                f"policy.lora_targets names {unknown[0]!r}, which no decoder layer has; "
                f"choose from {', '.join(linear)}"
            )
        return rank * self.layers * sum(sum(linear[name]) for name in targets)

    def kv_bytes(self, element: int) -> int:
        """Return the number of bytes of KV cache per token: keys and values of all layers.

        `element` is the number of bytes of one element.
        """
        return 2 * self.layers * self.kv_width * element


KNOWN = {
    "3B": Geometry(2048, 36, 16, 2, 11008, 151936, tied=True),
    "7B": Geometry(3584, 28, 28, 4, 18944, 152064, tied=False),
    "32B": Geometry(5120, 64, 40, 8, 27648, 152064, tied=False, v_intermediate=3456),
    "72B": Geometry(8192, 80, 64, 8, 29568, 152064, tied=False, v_intermediate=3456),
}
"""The sizes of Qwen/Qwen2.5-VL-<size>-Instruct, from each repository's config.json.

The parameter counts that follow from these sizes equal the published counts. For the small models,
table 1 of the technical report (arXiv 2502.13923) states another vocabulary size and another width
of the vision MLP.
"""


def geometry(base: str, family: ModelFamily) -> Geometry:
    """Return the geometry of the policy `base`: "mini", a local directory, or a Hugging Face id.

    Raises ConfigError if the geometry is unknown.
    Raises PolicyError if config.json cannot be read or describes another family.
    """
    if family.model_type != QWEN2_5_VL.model_type:
        raise ConfigError(
            f"policy.family is {family.name}, but a plan can be made for {QWEN2_5_VL.name} only"
        )
    if base == "mini":
        from awares.mini import POLICY

        return _read(Path(POLICY), family)
    path = Path(base).expanduser()
    if path.is_dir():
        return _read(path, family)
    match = _REPOSITORY.fullmatch(base)
    if match is None or match[1] not in KNOWN:
        names = ", ".join(f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in KNOWN)
        raise ConfigError(
            f"policy.base={base}: no geometry is known for it; "
            f"give a local directory with its config.json, or one of {names}"
        )
    return KNOWN[match[1]]


def _read(directory: Path, family: ModelFamily) -> Geometry:
    """Read the geometry from the config.json of a directory.

    transformers writes the language model's sizes under `text_config`. In older files these sizes
    are at the top level.
    """
    config = read_config(directory)
    check_kind(family, directory, config)
    try:
        return _geometry(config, config.get("text_config", config), config["vision_config"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise PolicyError(
            f"{directory}/config.json lacks a size of a {family.name}, or the size is no number "
            f"({type(error).__name__}: {error})"
        ) from error


def _geometry(config: dict[str, Any], text: dict[str, Any], vision: dict[str, Any]) -> Geometry:
    return Geometry(
        hidden=int(text["hidden_size"]),
        layers=int(text["num_hidden_layers"]),
        heads=int(text["num_attention_heads"]),
        kv_heads=int(text["num_key_value_heads"]),
        intermediate=int(text["intermediate_size"]),
        vocab=int(text["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        v_hidden=int(vision.get("hidden_size", 1280)),
        v_depth=int(vision.get("depth", 32)),
        v_intermediate=int(vision.get("intermediate_size", 3420)),
        patch=int(vision.get("patch_size", 14)),
        merge=int(vision.get("spatial_merge_size", 2)),
        v_temporal=int(vision.get("temporal_patch_size", 2)),
    )
