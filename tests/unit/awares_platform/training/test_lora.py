"""Tests that new LoRA adapters do not change the output, can be switched off, and can be merged."""

from typing import Any

import pytest
import torch
from torch import nn

from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.training import lora
from awares_platform.weights.adapter import DOWN, UP, is_adapter
from awares_platform.weights.manifest import WeightsError


class Tiny(nn.Module):
    """A model with a language model and a vision tower, whose layers have Qwen2.5-VL's names."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.ModuleDict({"gate_proj": nn.Linear(4, 4)})
        self.language_model = nn.ModuleDict(
            {"q_proj": nn.Linear(4, 6), "o_proj": nn.Linear(6, 3, bias=False)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.language_model["o_proj"](
            self.language_model["q_proj"](self.visual["gate_proj"](x))
        )


@pytest.fixture
def model() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def test_fresh_adapters_change_nothing_and_only_adapters_learn(model: Tiny) -> None:
    x = torch.randn(5, 4)
    before = model(x)
    assert lora.attach(model, QWEN2_5_VL, 2, 16.0, ("q_proj", "o_proj", "gate_proj"), seed=0) == 2
    assert torch.equal(model(x), before)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        f"language_model.{layer}{part}" for layer in ("q_proj", "o_proj") for part in (DOWN, UP)
    }


def test_the_adapter_is_scaled_by_alpha_over_rank() -> None:
    model = nn.ModuleDict({"q_proj": nn.Linear(2, 2, bias=False)})
    lora.attach(model, QWEN2_5_VL, rank=2, alpha=8.0, targets=(), seed=0)
    with torch.no_grad():
        model.get_parameter("q_proj.base_layer.weight").zero_()
        model.get_parameter(f"q_proj{DOWN}").copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
        model.get_parameter(f"q_proj{UP}").copy_(torch.tensor([[3.0, 0.0], [5.0, 0.0]]))
    # The output is s * (1 + 2) * (3, 5). The scale s is alpha / rank = 8 / 2.
    assert lora.scale(model) == 4.0
    assert model["q_proj"](torch.tensor([1.0, 1.0])).tolist() == [36.0, 60.0]


def test_adapters_off_is_the_base_model_even_after_an_error(model: Tiny) -> None:
    x = torch.randn(5, 4)
    before = model(x)
    lora.attach(model, QWEN2_5_VL, 2, 16.0, ("q_proj",), seed=0)
    nn.init.ones_(model.get_parameter(f"language_model.q_proj{UP}"))
    with pytest.raises(RuntimeError), lora.adapters_off(model):
        assert torch.equal(model(x), before)
        raise RuntimeError
    assert not torch.allclose(model(x), before)
    learning = [name for name, tensor in model.named_parameters() if tensor.requires_grad]
    assert learning == [f"language_model.q_proj{part}" for part in (DOWN, UP)]


def test_merged_weights_have_the_original_names_and_the_same_function(model: Tiny) -> None:
    x, plain = torch.randn(5, 4), Tiny()
    lora.attach(model, QWEN2_5_VL, 2, 16.0, ("q_proj", "o_proj"), seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith(UP):
            nn.init.normal_(parameter)
    plain.load_state_dict(lora.merged(model, model.state_dict()))
    assert torch.allclose(plain(x), model(x), atol=1e-5)


def test_a_trained_adapter_is_attached_to_another_copy_of_its_base(model: Tiny) -> None:
    x = torch.randn(5, 4)
    before = model(x)
    torch.manual_seed(0)
    other = Tiny()
    lora.attach(model, QWEN2_5_VL, 2, 16.0, ("q_proj", "o_proj"), seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith(UP):
            nn.init.normal_(parameter)
    adapter = {name: tensor for name, tensor in model.state_dict().items() if is_adapter(name)}
    lora.attach_trained(other, QWEN2_5_VL, adapter, 8.0)
    assert torch.equal(other(x), model(x)) and not torch.allclose(other(x), before)
    with lora.adapters_off(other):
        assert torch.equal(other(x), before)


def test_a_trained_adapter_that_does_not_fit_is_refused(model: Tiny) -> None:
    pair = {f"language_model.q_proj{DOWN}": torch.ones(2, 4)}
    wrong = pair | {f"language_model.q_proj{UP}": torch.ones(5, 2)}
    with pytest.raises(WeightsError, match="the adapter of language_model.q_proj does not fit"):
        lora.attach_trained(model, QWEN2_5_VL, wrong, 8.0)
    tower = {f"visual.gate_proj{DOWN}": torch.ones(2, 4), f"visual.gate_proj{UP}": torch.ones(4, 2)}
    both = pair | {f"language_model.q_proj{UP}": torch.ones(6, 2)} | tower
    with pytest.raises(WeightsError, match=r"no place for the adapter's tensor visual.gate_proj"):
        lora.attach_trained(model, QWEN2_5_VL, both, 8.0)


def test_a_continued_adapter_starts_from_its_values_and_they_stay_the_reference(
    model: Tiny,
) -> None:
    x = torch.randn(5, 4)
    lora.attach(model, QWEN2_5_VL, 2, 16.0, ("q_proj", "o_proj"), seed=0)
    own = {name: tensor for name, tensor in model.named_parameters() if is_adapter(name)}
    adapter = {name: torch.randn_like(tensor) for name, tensor in own.items()}
    before, names = model(x), [*model.state_dict()]
    lora.continue_from(model, adapter, 8.0)
    start = model(x)
    assert all(torch.equal(own[name], adapter[name]) for name in own)
    assert not torch.allclose(start, before) and [*model.state_dict()] == names
    with torch.no_grad():
        for tensor in own.values():
            tensor.add_(1.0)
    assert not torch.allclose(model(x), start)
    with pytest.raises(RuntimeError), lora.reference(model):
        assert torch.allclose(model(x), start, atol=1e-5)
        raise RuntimeError
    assert not torch.allclose(model(x), start)
    with lora.adapters_off(model):
        assert torch.equal(model(x), before)


def test_the_reference_of_a_new_adapter_is_the_base_model(model: Tiny) -> None:
    x = torch.randn(5, 4)
    before = model(x)
    lora.attach(model, QWEN2_5_VL, 2, 16.0, ("q_proj",), seed=0)
    nn.init.ones_(model.get_parameter(f"language_model.q_proj{UP}"))
    with lora.reference(model):
        assert torch.equal(model(x), before)
    assert not torch.allclose(model(x), before)


@pytest.mark.parametrize(
    ("rank", "alpha", "targets"),
    [(4, 16.0, ("q_proj",)), (2, 8.0, ("q_proj",)), (2, 16.0, ("q_proj", "o_proj"))],
)
def test_an_adapter_of_another_form_is_not_continued(
    model: Tiny, rank: int, alpha: float, targets: tuple[str, ...]
) -> None:
    trained = Tiny()
    lora.attach(trained, QWEN2_5_VL, 2, 16.0, ("q_proj",), seed=0)
    adapter = {name: one for name, one in trained.state_dict().items() if is_adapter(name)}
    lora.attach(model, QWEN2_5_VL, rank, alpha, targets, seed=0)
    with pytest.raises(PolicyError, match=r"`awares grpo` the same section \[policy\]"):
        lora.continue_from(model, adapter, 8.0)


def test_the_same_seed_gives_the_same_adapters() -> None:
    one, two = Tiny(), Tiny()
    for each in (one, two):
        torch.rand(1)  # Change the state of torch's global generator.
        lora.attach(each, QWEN2_5_VL, 2, 16.0, ("q_proj",), seed=7)
    name = f"language_model.q_proj{DOWN}"
    assert torch.equal(one.get_parameter(name), two.get_parameter(name))


def test_targets_that_match_nothing_are_named(model: Tiny) -> None:
    with pytest.raises(
        PolicyError, match=r"policy.lora_targets=\['c_attn'\] match no linear layer"
    ):
        lora.attach(model, QWEN2_5_VL, 2, 16.0, ("c_attn",), seed=0)


def test_a_layer_in_bfloat16_keeps_a_small_update(model: Tiny) -> None:
    """peft's own forward method would lose much of the update to rounding."""
    model = model.bfloat16()
    lora.attach(model, QWEN2_5_VL, 2, 2.0, ("q_proj",), seed=0)
    layer: Any = model.language_model["q_proj"]
    torch.manual_seed(1)
    x = torch.randn(20_000, 4).bfloat16()
    with torch.no_grad():
        before = layer(x)
        layer.lora_B["default"].weight.fill_(5e-4)
        change = layer.lora_B["default"](layer.lora_A["default"](x)).double()
        found = (layer(x) - before).double()
        with lora.adapters_off(model):
            assert torch.equal(layer(x), before)
    share = float((found * change).sum() / change.square().sum())
    assert share == pytest.approx(1, abs=0.08)
