"""The properties of Qwen2.5-VL (arXiv 2502.13923) on which awares relies."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from awares.family import ChatTokens
from awares.tokens import VisionLimits

# Each pattern matches a prefix of the weight names in early checkpoints. The text beside the
# pattern is the present prefix.
_OLDER = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?!language_model\.|visual\.)"), "model.language_model."),
)


class Qwen25VL:
    """Qwen2.5-VL, from 3B to 72B, and the tiny policy that ships with awares.

    A visual token covers 2 x 2 patches of 14 x 14 pixels.

    Example:
        family = Qwen25VL()
        limits = family.limits(min_pixels=784, max_pixels=1_605_632)
    """

    name = "Qwen2.5-VL"
    model_type = "qwen2_5_vl"
    architecture = "Qwen2_5_VLForConditionalGeneration"
    vllm_module = "vllm.model_executor.models.qwen2_5_vl"
    tower = "model.visual"
    lora_targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names in transformers. vLLM has one layer for q, k and v, and one for gate and up."""
    chat = ChatTokens(
        start="<|im_start|>",
        end="<|im_end|>",
        image_start="<|vision_start|>",
        image="<|image_pad|>",
        image_end="<|vision_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        blocked=(
            "<|im_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|vision_pad|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ),
    )
    token_keys: Mapping[str, str] = {
        "<|image_pad|>": "image_token_id",
        "<|vision_start|>": "vision_start_token_id",
        "<|vision_end|>": "vision_end_token_id",
    }
    grid_keys: Mapping[str, str] = {
        "patch_size": "patch_size",
        "merge_size": "spatial_merge_size",
        "temporal_patch_size": "temporal_patch_size",
    }

    def limits(self, min_pixels: int, max_pixels: int) -> VisionLimits:
        """Return the processor's limits: 14 x 14 pixels per patch, 2 x 2 patches per token."""
        return VisionLimits(patch=14, merge=2, min_pixels=min_pixels, max_pixels=max_pixels)

    def processor_options(self, limits: VisionLimits) -> dict[str, Any]:
        """Return the option `size`. Despite "edge" in the keys, the values are areas in pixels."""
        return {"size": {"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels}}

    def load_model(self, path: Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """Return the model and the loading report. Exceptions of transformers are not caught."""
        import transformers

        return getattr(transformers, self.architecture).from_pretrained(
            path, output_loading_info=True, **options
        )

    def positions(
        self, ids: Sequence[int], image_token_id: int, grids: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, int]]:
        """Return M-RoPE's position ids (section 2.1.3 of the Qwen2-VL report, arXiv 2409.12191).

        Text has equal positions on all axes. An image's rows and columns count up from its position
        p, and the text goes on at p + max(rows, columns).
        """
        found: list[tuple[int, int, int]] = []
        here, remaining = 0, iter(grids)
        while len(found) < len(ids):
            if ids[len(found)] != image_token_id:
                found.append((here, here, here))
                here += 1
                continue
            rows, columns = next(remaining)
            cells = product(range(rows), range(columns))
            found.extend((here, here + row, here + column) for row, column in cells)
            here += max(rows, columns)
        return found

    def current_name(self, name: str) -> str:
        """Return the current transformers name of a weight that a checkpoint calls `name`."""
        for pattern, newer in _OLDER:
            name = pattern.sub(newer, name)
        return name


QWEN2_5_VL = Qwen25VL()
"""The family of the shipped policy."""
