"""Tests that a shared vision tower gives the same logprobs and gradients as separate towers."""

import copy
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    BaseModelOutputWithDeepstackFeatures as Deepstack,
)

from awares.batch import Batch, collate
from awares.crops import CropId
from awares.demonstration import demonstration
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.logprobs import policy_logprobs
from awares.sample import Label, Sample
from awares.tower import SharedTower, repeated

IMAGE = Image.effect_mandelbrot((140, 112), (-2, -1.5, 1, 1.5), 80).convert("RGB")


@pytest.fixture
def batch(chat, processor, limits) -> Batch:
    """Return three sequences with six images, of which three are distinct."""

    def called(*crops: CropId) -> Any:
        sample = Sample("s", "blue", "which?", "7", label=Label.HR, crops=crops)
        return demonstration(sample, chat, IMAGE.size)

    items = [called(CropId.TOP_LEFT), called(CropId.RIGHT), called(CropId.TOP_LEFT)]
    return collate(items, lambda _: IMAGE, processor, limits)


class Counted:
    """Records how many patches a model's patch embedding gets in each call."""

    def __init__(self, model: Any) -> None:
        self.patches: list[int] = []
        embedding = model.get_submodule(QWEN2_5_VL.tower).patch_embed
        embedding.register_forward_pre_hook(lambda _, args: self.patches.append(len(args[0])))


def test_a_batch_numbers_its_distinct_views(batch: Batch) -> None:
    assert batch.image_views_I.tolist() == [0, 1, 0, 2, 0, 1]


def test_shared_passes_equal_separate_passes(
    policy: Qwen2_5_VLForConditionalGeneration, batch: Batch
) -> None:
    models = [copy.deepcopy(policy), copy.deepcopy(policy)]
    with torch.no_grad():
        models[1].lm_head.weight.mul_(1.1)
    for model in models:
        model.get_submodule(QWEN2_5_VL.tower).requires_grad_(False)

    def compute() -> list[torch.Tensor]:
        models[0].zero_grad()
        with torch.no_grad():
            theirs = policy_logprobs(models[1], batch)
        ours = policy_logprobs(models[0], batch)
        ours.sum().backward()
        gradient = models[0].model.language_model.layers[0].self_attn.q_proj.weight.grad
        assert gradient is not None
        return [theirs.detach(), ours.detach(), gradient.clone()]

    expected = compute()
    counted = [Counted(model) for model in models]
    tower = SharedTower(models, QWEN2_5_VL.tower)
    with tower.batch(batch):
        shared = compute()
    patches = batch.image_grid_thw_I3.prod(1)
    assert counted[1].patches == [int(patches[[0, 1, 3]].sum())] and counted[0].patches == []
    torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-5)
    # Outside the `with` block, each tower computes its own features again.
    torch.testing.assert_close(compute(), expected)
    assert [len(model.patches) for model in counted] == [1, 2]


def test_a_trained_tower_gets_its_gradient(
    policy: Qwen2_5_VLForConditionalGeneration, batch: Batch
) -> None:
    model = copy.deepcopy(policy)
    tower = SharedTower([model], QWEN2_5_VL.tower)
    with tower.batch(batch):
        policy_logprobs(model, batch).sum().backward()
    gradient = model.get_submodule(QWEN2_5_VL.tower).patch_embed.proj.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_every_feature_is_repeated() -> None:
    # The two views have 4 and 8 patches. The tower merges 4 patches into one row.
    rows = torch.tensor([[0.0], [1.0], [2.0]])
    output = Deepstack(
        last_hidden_state=torch.zeros(12, 1),  # type: ignore[arg-type]
        pooler_output=rows,  # type: ignore[arg-type]
        deepstack_features=[rows + 10],  # type: ignore[arg-type]
    )
    made = repeated(output, [4, 8], [1, 0, 1])
    assert made.last_hidden_state is None
    assert made.pooler_output.flatten().tolist() == [1, 2, 0, 1, 2]
    assert made.deepstack_features[0].flatten().tolist() == [11, 12, 10, 11, 12]
