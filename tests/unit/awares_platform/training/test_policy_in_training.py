"""Tests which layers gradient checkpointing computes twice when a policy is trained."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from awares.mini import POLICY
from awares_platform.config.policy import PolicyConfig
from awares_platform.training.policy import load_policy


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Return the inputs of one sequence: an image of 4 tokens, 2 delimiters and 2 text tokens."""
    config = model.config
    ids = [config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id]
    ids_BT = torch.tensor([[*ids, 20, 21]])
    pixels = 3 * config.vision_config.temporal_patch_size * config.vision_config.patch_size**2
    return {
        "input_ids": ids_BT,
        "mm_token_type_ids": (ids_BT == config.image_token_id).int(),
        "pixel_values": torch.ones(16, pixels),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }


@pytest.mark.parametrize(
    ("settings", "tower", "layer"),
    [
        ({"lora_rank": 2}, 1, 1),
        ({"lora_rank": 2, "gradient_checkpointing": True}, 1, 2),
        ({"gradient_checkpointing": True}, 1, 2),
        ({"gradient_checkpointing": True, "train_vision": True}, 2, 2),
    ],
)
def test_checkpointing_recomputes_only_what_has_a_backward_pass(
    settings: dict[str, Any], tower: int, layer: int
) -> None:
    """Check that a frozen vision tower, which has no backward pass, is computed only once."""
    model: Any = load_policy(Path(POLICY), PolicyConfig(**settings), seed=0)
    runs: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        return lambda *_: runs.update([name])

    model.model.visual.blocks[0].register_forward_pre_hook(count("tower"))
    model.model.language_model.layers[0].register_forward_pre_hook(count("layer"))
    model(**inputs(model)).logits.sum().backward()
    assert (runs["tower"], runs["layer"]) == (tower, layer)
    assert any(parameter.grad is not None for parameter in model.parameters())
