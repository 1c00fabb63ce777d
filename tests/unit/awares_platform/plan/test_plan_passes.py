"""Tests the planned memory of a training pass against the tensors of a real pass.

Each layer of the real model has an eighth of the width that it has in the 7B model. The comparison
holds for the 7B model too, because all tensors grow with the width.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from awares.batch import Batch
from awares.logprobs import policy_logprobs
from awares.mini import POLICY
from awares_platform.config.policy import PolicyConfig
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.trainer import Trainer, element_bytes, memory, trained_parameters
from awares_platform.training import rounding
from awares_platform.training.policy import load_policy
from tests.unit.awares_platform.plan.live_tensors import LiveTensors

SHAPE = Geometry(
    hidden=448,
    layers=3,
    heads=7,
    kv_heads=1,
    intermediate=2368,
    vocab=8192,
    tied=False,
    v_hidden=160,
    v_depth=2,
    v_intermediate=428,
)
GRID = (1, 28, 32)
"""The patches of the image: frames, rows, columns."""
VISUAL, WIDTH = 224, 256
"""The numbers of visual tokens and of all tokens in the sequence.

Most tokens are visual, because the plan assumes that all tokens are.
"""
IMAGE, VIDEO, START, END = 6, 7, 3, 4


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a random model with the layer sizes SHAPE, and return its directory."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": SHAPE.vocab,
            "hidden_size": SHAPE.hidden,
            "intermediate_size": SHAPE.intermediate,
            "num_hidden_layers": SHAPE.layers,
            "num_attention_heads": SHAPE.heads,
            "num_key_value_heads": SHAPE.kv_heads,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [8, 12, 12],
                "rope_theta": 1e6,
            },
            "bos_token_id": None,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": SHAPE.v_depth,
            "hidden_size": SHAPE.v_hidden,
            "intermediate_size": SHAPE.v_intermediate,
            "num_heads": 4,
            "out_hidden_size": SHAPE.hidden,
            "fullatt_block_indexes": [1],
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(path)
    for file in Path(POLICY).iterdir():
        if not (path / file.name).exists():
            shutil.copy(file, path)
    return path


def batch(scored: int) -> Batch:
    """Return one sequence of an image and text. Its last `scored` tokens count as sampled."""
    ids_BT = torch.randint(10, SHAPE.vocab, (1, WIDTH))
    ids_BT[0, 2], ids_BT[0, 3 : 3 + VISUAL], ids_BT[0, 3 + VISUAL] = START, IMAGE, END
    action_BT = torch.zeros(1, WIDTH, dtype=torch.bool)
    action_BT[:, -scored:] = True
    zeros_BT = torch.zeros(1, WIDTH)
    return Batch(
        input_ids_BT=ids_BT,
        attention_mask_BT=torch.ones_like(ids_BT),
        mm_token_type_ids_BT=(ids_BT == IMAGE).int(),
        pixel_values_ND=torch.randn(GRID[1] * GRID[2], 3 * 2 * 14**2),
        image_grid_thw_I3=torch.tensor([GRID]),
        image_views_I=torch.tensor([0]),
        action_mask_BT=action_BT,
        behaviour_logprobs_BT=zeros_BT,
        weights_BT=zeros_BT,
        versions_BT=zeros_BT.long(),
    )


@pytest.mark.parametrize(
    ("settings", "scored"),
    [
        ({"dtype": "bfloat16", "lora_rank": 8, "gradient_checkpointing": True}, 8),
        ({"dtype": "bfloat16", "lora_rank": 8, "gradient_checkpointing": True}, 250),
        ({"dtype": "bfloat16", "lora_rank": 8}, 8),
        ({"dtype": "float32", "lora_rank": 8, "gradient_checkpointing": True}, 8),
        ({"dtype": "float32", "lora_rank": 8}, 250),
        ({"dtype": "float32", "gradient_checkpointing": True}, 8),
        ({"dtype": "float32", "gradient_checkpointing": True, "train_vision": True}, 8),
    ],
    ids=["layers", "logits", "kept", "float32", "float32-kept", "whole", "vision"],
)
def test_the_plan_is_within_a_tenth_of_a_pass(
    directory: Path, settings: dict[str, Any], scored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CHUNK is the largest number of elements that LoRA layers add at a time. The tensors of this
    # test are far smaller than those of the 7B model, so CHUNK must be smaller too.
    monkeypatch.setattr(rounding, "CHUNK", rounding.CHUNK // 256)
    policy = PolicyConfig(base=str(directory), **settings)
    model: Any = load_policy(directory, policy, seed=0)
    trained, frozen = trained_parameters(policy, SHAPE)
    rank = Trainer(
        trained=trained,
        frozen=frozen,
        ranks=1,
        stage=2,
        weight=element_bytes(policy.dtype),
        batch=1,
        width=WIDTH,
        scored=scored,
        checkpointing=policy.gradient_checkpointing,
        vision=policy.train_vision,
        reference=False,
    )
    inputs = batch(scored)
    # The plan counts the gradients as model states, so the test creates them before it measures.
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    known = [*model.parameters(), *model.buffers(), *gradients, inputs.pixel_values_ND]
    with LiveTensors(known) as live:
        policy_logprobs(model, inputs, blocked_ids=[START, END]).sum().backward()
    planned = memory(rank, SHAPE, overhead_gib=0)
    wanted = planned.activations + max(planned.layer, planned.logits)
    found = live.peak + inputs.pixel_values_ND.nbytes
    assert found == pytest.approx(wanted, rel=0.1)
