"""Tests that new weights can be applied to a small model that consists of vLLM's layers.

vLLM's layout of the weights depends on the processor. The tests produce each layout:

    plain     on GPUs: a layer keeps its weight as loaded
    closure   on CPUs without oneDNN: a layer computes with a closure over its weight
    packed    on CPUs with oneDNN: a layer has only a packed copy of its weight
    native    the layout of the processor that runs the test
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from vllm.config import ModelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.model_executor.layers import utils as dispatch
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload import record_metadata_for_reloading
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper

from awares_platform.engine.apply import (
    LoadMode,
    aliases,
    apply,
    load_mode,
    on_device,
    touched,
    units,
)
from awares_platform.weights.manifest import WeightsError

# The tests are slow because they import vLLM.
pytestmark = pytest.mark.slow

WIDTH, WORDS = 64, 96
# The class replaces an instance. Only attention layers read the configuration, and the model of
# this file has no attention layers.
CONFIG: Any = ModelConfig
CPUS = ["closure", "packed", "native"]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = RMSNorm(WIDTH, dtype=torch.bfloat16)
        self.qkv_proj = QKVParallelLinear(WIDTH, 16, 4, 2, bias=True, params_dtype=torch.bfloat16)
        self.o_proj = RowParallelLinear(WIDTH, WIDTH, bias=False, params_dtype=torch.bfloat16)


class Model(nn.Module):
    """A model that consists of an embedding, two layers and an output head."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={"model.": "body."},
        orig_to_new_stacked={
            ".q_proj": (".qkv_proj", "q"),
            ".k_proj": (".qkv_proj", "k"),
            ".v_proj": (".qkv_proj", "v"),
        },
    )

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.body = nn.ModuleDict(
            {
                "embed": VocabParallelEmbedding(WORDS, WIDTH, params_dtype=torch.bfloat16),
                "layers": nn.ModuleList([Layer(), Layer()]),
            }
        )
        self.lm_head = ParallelLMHead(WORDS, WIDTH, params_dtype=torch.bfloat16)
        if tied:
            self.lm_head = self.lm_head.tie_weights(
                self.body["embed"]  # pyright: ignore[reportArgumentType]
            )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)


@pytest.fixture(scope="module", autouse=True)
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Create the tensor-parallel group that vLLM's layers need, with a single rank."""
    rendezvous: Path = tmp_path_factory.mktemp("group") / "rendezvous"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{rendezvous}", 0, "gloo")
        initialize_model_parallel(1, 1)
        yield
        destroy_model_parallel()
        destroy_distributed_environment()


@pytest.fixture(params=["plain", *CPUS])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make vLLM choose the requested layout during the test, and return the layout's name."""
    if request.param in ("closure", "packed"):
        monkeypatch.setattr(dispatch, "check_cpu_sgl_kernel", lambda *_: False)
        monkeypatch.setattr(dispatch.ops, "_supports_onednn", request.param == "packed")
    if request.param == "packed":
        # A plain copy replaces oneDNN's packed copy, because this processor may lack oneDNN.
        monkeypatch.setattr(
            dispatch.ops, "create_onednn_mm", lambda weight_KN, _: weight_KN.clone()
        )
        monkeypatch.setattr(
            dispatch.ops, "onednn_mm", lambda copy_KN, x, bias: linear(x, copy_KN.t(), bias)
        )
    return request.param


def checkpoint(seed: int, tied: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed.weight": (WORDS, WIDTH)}
    for index in range(2):
        layer = f"model.layers.{index}"
        shapes[f"{layer}.norm.weight"] = (WIDTH,)
        for part, rows in (("q", 64), ("k", 32), ("v", 32)):
            shapes[f"{layer}.{part}_proj.weight"] = (rows, WIDTH)
            shapes[f"{layer}.{part}_proj.bias"] = (rows,)
        shapes[f"{layer}.o_proj.weight"] = (WIDTH, WIDTH)
    if not tied:
        shapes["lm_head.weight"] = (WORDS, WIDTH)
    return {name: torch.randn(shape).to(torch.bfloat16) for name, shape in shapes.items()}


def started(state: dict[str, Tensor], layout: str, *, tied: bool = False) -> Model:
    """Load `state` into a model. Unless the layout is "plain", process its layers as vLLM does."""
    model = Model(tied)
    record_metadata_for_reloading(model)
    model.load_weights(state.items())
    for module in model.modules():
        if layout != "plain" and (method := getattr(module, "quant_method", None)) is not None:
            method.process_weights_after_loading(module)
    return model


def update(model: Model, old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    apply(model, CONFIG, touched(units(model, new), changed), new)


def outputs(model: Any, x: Tensor) -> list[Tensor]:
    """Return the output of each embedding and linear layer, and the weight of each norm.

    An embedding gets all token ids, and a linear layer gets `x`.
    """

    def compute(module: Any) -> Tensor:
        # When vLLM processes a layer for a CPU, it adds the attribute `cpu_linear`. From then on,
        # the layer computes with this attribute.
        if "cpu_linear" not in vars(module):
            return linear(x, module.weight, module.bias)
        return module.quant_method.apply(module, x, module.bias)

    found = [model.body["embed"](torch.arange(WORDS)), compute(model.lm_head)[:, :WORDS]]
    for layer in model.body["layers"]:
        found += [layer.norm.weight.detach(), compute(layer.qkv_proj), compute(layer.o_proj)]
    return found


def expected(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    embed = state["model.embed.weight"]
    found = [embed, linear(x, state.get("lm_head.weight", embed))]
    for layer in ("model.layers.0", "model.layers.1"):
        weight = torch.cat([state[f"{layer}.{part}_proj.weight"] for part in "qkv"])
        bias = torch.cat([state[f"{layer}.{part}_proj.bias"] for part in "qkv"])
        found += [
            state[f"{layer}.norm.weight"],
            linear(x, weight, bias),
            linear(x, state[f"{layer}.o_proj.weight"]),
        ]
    return found


def assert_computes(model: Model, state: dict[str, Tensor]) -> None:
    x = torch.randn(5, WIDTH).to(torch.bfloat16)
    for found, wanted in zip(outputs(model, x), expected(state, x), strict=True):
        # Rounding to bfloat16 changes a value by at most 0.4 %. Two kernels may also sum in
        # different orders.
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_all_tensors_changed(layout: str, tied: bool) -> None:
    old, new = checkpoint(0, tied), checkpoint(1, tied)
    model = started(old, layout, tied=tied)
    assert_computes(model, old)
    update(model, old, new)
    assert_computes(model, new)
    update(model, new, old)
    assert_computes(model, old)


@pytest.mark.parametrize("name", checkpoint(0, tied=True))
def test_one_tensor_changed(layout: str, name: str) -> None:
    """Check the outputs after an update in which only the tensor `name` changes.

    The tensor can be a part of a fused module, a bias or a tied embedding.
    """
    old = checkpoint(0, tied=True)
    new = {**old, name: checkpoint(1, tied=True)[name]}
    model = started(old, layout, tied=True)
    update(model, old, new)
    assert_computes(model, new)


@pytest.mark.parametrize(
    ("layout", "embedding", "linears"),
    [
        ("plain", LoadMode.IN_PLACE, LoadMode.IN_PLACE),
        ("closure", LoadMode.REPACK, LoadMode.REPACK),
        ("packed", LoadMode.REPACK, LoadMode.RELOAD),
    ],
    indirect=["layout"],
)
def test_load_modes_are_read_off_the_modules(
    layout: str, embedding: LoadMode, linears: LoadMode
) -> None:
    model: Any = started(checkpoint(0), layout)
    layer = model.body["layers"][0]
    modules = (model.body["embed"], model.lm_head, layer.norm, layer.qkv_proj, layer.o_proj)
    expected = [embedding, embedding, LoadMode.IN_PLACE, linears, linears]
    assert [load_mode(module) for module in modules] == expected


def test_parameters_keep_their_storage() -> None:
    """Check that an update keeps the addresses of the parameters, which CUDA graphs contain."""
    old, new = checkpoint(0), checkpoint(1)
    model = started(old, "plain")
    before = {
        name: (id(parameter), parameter.data_ptr()) for name, parameter in model.named_parameters()
    }
    update(model, old, new)
    assert before == {
        name: (id(parameter), parameter.data_ptr()) for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("layout", CPUS, indirect=True)
def test_an_unchanged_module_is_not_touched(layout: str) -> None:
    old, new = checkpoint(0), checkpoint(1)
    model: Any = started(old, layout)
    kept = [model.body["layers"][1].qkv_proj, model.body["layers"][0].o_proj, model.lm_head]
    before = [module.cpu_linear for module in kept]
    update(model, old, {**old, "model.layers.0.q_proj.weight": new["model.layers.0.q_proj.weight"]})
    assert [module.cpu_linear for module in kept] == before


@pytest.mark.parametrize("layout", CPUS, indirect=True)
def test_a_fused_module_is_one_unit_and_so_is_a_tied_pair(layout: str) -> None:
    state = checkpoint(0, tied=True)
    model = started(state, layout, tied=True)
    found = units(model, state)
    assert [len(unit.tensors) for unit in found] == [1, 1, 6, 1, 1, 6, 1]
    assert found[0].modules == (model.body["embed"], model.lm_head)
    assert aliases(model) == {"lm_head.weight": "body.embed.weight"}
    [fused] = touched(found, {"model.layers.1.k_proj.bias"})
    assert fused.parameters == {"body.layers.1.qkv_proj.weight", "body.layers.1.qkv_proj.bias"}
    assert touched(found, set()) == ()


def test_only_changed_units_are_copied_to_the_device_ahead() -> None:
    state = checkpoint(0)
    found = touched(units(started(state, "plain"), state), {"model.layers.1.v_proj.bias"})
    ahead = on_device(found, state, torch.device("meta"))
    assert [*ahead] == [
        f"model.layers.1.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")
    ]
    assert all(tensor.is_meta for tensor in ahead.values())


@pytest.mark.parametrize("layout", CPUS, indirect=True)
def test_a_tied_pair_takes_a_checkpoint_that_names_both(layout: str) -> None:
    old, new = checkpoint(0, tied=True), checkpoint(1, tied=True)
    model = started(old, layout, tied=True)
    both = {**new, "lm_head.weight": new["model.embed.weight"]}
    apply(model, CONFIG, units(model, both), both)
    assert_computes(model, new)


def test_names_that_do_not_fit_the_model_are_refused() -> None:
    state = checkpoint(0)
    model = started(state, "plain")
    with pytest.raises(WeightsError, match=r"no parameter for model\.layers\.2\.norm\.weight"):
        units(model, [*state, "model.layers.2.norm.weight"])
    with pytest.raises(
        WeightsError, match=r"no tensors for 1 parameters of the engine's model: lm_head\.weight"
    ):
        units(model, [name for name in state if name != "lm_head.weight"])


def test_a_loader_that_skips_a_parameter_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    state = checkpoint(0)
    model = started(state, "plain")
    found = units(model, state)
    monkeypatch.setattr(
        model,
        "load_weights",
        lambda weights: (
            {name for name, _ in weights if "lm_head" not in name} | found[0].parameters
        ),
    )
    with pytest.raises(WeightsError, match=r"took no tensors for \d parameters: body\.layers"):
        apply(model, CONFIG, found, state)


def test_a_tensor_of_another_shape_raises(layout: str) -> None:
    old, new = checkpoint(0), checkpoint(1)
    model = started(old, layout)
    new["model.layers.1.o_proj.weight"] = new["model.layers.1.o_proj.weight"][:, :-1]
    with pytest.raises((AssertionError, RuntimeError)):
        apply(model, CONFIG, units(model, new), new)
