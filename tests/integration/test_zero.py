"""Tests that DeepSpeed and plain PyTorch compute the same weights on one rank, without Ray.

The tests cover every ZeRO stage, steps of one to three micro-batches, LoRA and checkpoints.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from pydantic import ValidationError
from torch import Tensor

from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares_platform.config.policy import PolicyConfig
from awares_platform.training import lora, shards, zero
from awares_platform.training.policy import load_policy
from awares_platform.weights.adapter import fold_adapter, is_adapter

pytestmark = [pytest.mark.slow, pytest.mark.integration]

RATE = 1e-2
MICRO_BATCHES = ((3, 1), (2,), (1, 2, 1))
"""The number of rows in each micro-batch. Each inner tuple lists one step's micro-batches."""


@pytest.fixture(scope="module", autouse=True)
def rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make this process the only rank of a process group."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "RANK": "0",
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
        }.items():
            environment.setenv(name, value)
        meeting = tmp_path_factory.mktemp("meeting") / "point"
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=0, world_size=1
        )
        yield
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, tokenizer = tmp_path_factory.mktemp("base"), train_tokenizer()
    save_policy(build_model(tokenizer, seed=0), tokenizer, directory)
    return directory


def _model(base: Path, dtype: str = "float32", lora_rank: int = 0) -> Any:
    config = PolicyConfig(dtype=dtype, lora_rank=lora_rank)  # type: ignore[arg-type]
    return load_policy(base, config, 0)


def _losses(model: Any, step: int) -> Iterator[Tensor]:
    for index, rows in enumerate(MICRO_BATCHES[step]):
        ids_BT = torch.randint(
            20, 60, (rows, 7), generator=torch.Generator().manual_seed(10 * step + index)
        )
        logprobs_BTV = model(input_ids=ids_BT).logits.float().log_softmax(-1)
        yield -logprobs_BTV[:, :-1].gather(2, ids_BT[:, 1:, None]).mean() / len(MICRO_BATCHES[step])


def _plain(model: Any, steps: Sequence[int]) -> dict[str, Tensor]:
    """Train `model` with plain PyTorch for the given steps, and return the trained weights.

    AdamW has no weight decay for norms and biases. The returned weights include LoRA adapters.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in learning if parameter.ndim >= 2],
            "weight_decay": 0.1,
        },
        {
            "params": [parameter for parameter in learning if parameter.ndim < 2],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=RATE)
    for step in steps:
        optimizer.zero_grad()
        torch.stack(list(_losses(model, step))).sum().backward()
        torch.nn.utils.clip_grad_norm_(
            [parameter for parameter in learning if parameter.grad is not None], 1.0
        )
        optimizer.step()
    return lora.merged(
        model, {name: parameter.detach() for name, parameter in model.named_parameters()}
    )


def test_the_vision_tower_learns_only_when_asked(base: Path) -> None:
    frozen, whole = (
        load_policy(base, PolicyConfig(train_vision=train), 0) for train in (False, True)
    )
    still = {name for name, parameter in frozen.named_parameters() if not parameter.requires_grad}
    assert (
        still
        == {name for name, _ in frozen.named_parameters() if name.startswith("model.visual.")}
        != set()
    )
    assert all(parameter.requires_grad for parameter in whole.parameters())
    with pytest.raises(ValidationError, match=r"policy\.train_vision needs policy\.lora_rank = 0"):
        PolicyConfig(train_vision=True, lora_rank=4)


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("stage", [2, 3])
def test_gradient_checkpointing_runs_each_layer_twice(
    base: Path, stage: int, lora_rank: int
) -> None:
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    trained, runs = [], []
    for checkpointing in (False, True):
        policy = PolicyConfig(lora_rank=lora_rank, gradient_checkpointing=checkpointing)
        engine = zero.initialize(load_policy(base, policy, 0), settings)
        layer, counted = engine.module.model.language_model.layers[0], [0]

        def count(*_: Any, counted: list[int] = counted) -> None:
            counted[0] += 1

        layer.self_attn.register_forward_pre_hook(count)
        zero.step(engine, _losses(engine, 1), RATE)
        runs.append(counted[0])
        trained.append(zero.full_state(engine))
    assert runs == [1, 2]
    plain, recomputed = trained
    for name in plain:
        torch.testing.assert_close(recomputed[name], plain[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_steps_do_what_plain_pytorch_does(base: Path, stage: int, lora_rank: int) -> None:
    settings = zero.ZeroSettings(stage, "float32", RATE, weight_decay=0.1)  # type: ignore[arg-type]
    engine = zero.initialize(_model(base, lora_rank=lora_rank), settings)
    for step in range(3):
        # This forward pass imitates GRPO, which computes reference logprobs before every step.
        with torch.no_grad(), lora.adapters_off(engine.module):
            list(_losses(engine, step))
        zero.step(engine, _losses(engine, step), RATE)
    found, wanted = zero.full_state(engine), _plain(_model(base, lora_rank=lora_rank), range(3))
    assert found.keys() == wanted.keys()
    off = torch.cat([(found[name] - wanted[name]).abs().flatten() for name in wanted])
    # Rounding errors matter only for weights whose gradients are as small as AdamW's epsilon. Such
    # weights are rare, and differ by less than a tenth of a step.
    assert off.max() < RATE / 10 and (off > 2e-5).float().mean() < 1e-4


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_continued_adapter_trains_and_its_start_stays_the_reference(
    base: Path, stage: int
) -> None:
    model = _model(base, lora_rank=4)
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    torch.manual_seed(0)
    adapter = {
        name: torch.randn_like(tensor) * 0.02
        for name, tensor in model.named_parameters()
        if is_adapter(name)
    }
    lora.continue_from(model, adapter, lora.scale(model) or 0.0)
    engine = zero.initialize(model, settings)
    before = zero.full_adapter(engine)
    assert all(torch.equal(before[name], adapter[name]) for name in adapter)
    with torch.no_grad():
        start = [float(loss) for loss in _losses(engine, 0)]
    # This order of passes imitates GRPO, which computes reference logprobs before every step.
    for step in range(2):
        with torch.no_grad(), lora.reference(engine.module):
            found = [float(loss) for loss in _losses(engine, 0)]
        assert found == pytest.approx(start, rel=1e-6)
        zero.step(engine, _losses(engine, step), RATE)
    with torch.no_grad():
        trained = [float(loss) for loss in _losses(engine, 0)]
    assert trained != pytest.approx(start, rel=1e-3)
    assert zero.full_adapter(engine).keys() == adapter.keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_step_with_a_gradient_that_is_not_finite_changes_nothing(
    base: Path, stage: int, dtype: str
) -> None:
    settings = zero.ZeroSettings(stage, dtype, RATE)  # type: ignore[arg-type]
    spoilt, plain = (zero.initialize(_model(base, dtype), settings) for _ in range(2))
    for engine in (spoilt, plain):
        assert zero.step(engine, _losses(engine, 0), RATE).taken
    before = zero.full_state(spoilt)
    for factor in (math.nan, math.inf):
        losses = (loss * factor for loss in _losses(spoilt, 1))
        assert zero.step(spoilt, losses, RATE) == zero.OptimizerStep(math.inf, taken=False)
    after = zero.full_state(spoilt)
    assert all(torch.equal(after[name], before[name]) for name in before)
    # The optimizer's state has not changed, either: the next step is the same as without the fault.
    for engine in (spoilt, plain):
        assert zero.step(engine, _losses(engine, 1), RATE).taken
    found, wanted = zero.full_state(spoilt), zero.full_state(plain)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("stage", "lora_rank"), [(2, 0), (3, 0), (2, 4), (3, 4)])
def test_a_loaded_checkpoint_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path, stage: int, lora_rank: int
) -> None:
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    engine = zero.initialize(_model(base, lora_rank=lora_rank), settings)
    zero.step(engine, _losses(engine, 0), RATE)
    shards.write(engine, tmp_path)
    zero.step(engine, _losses(engine, 1), RATE)
    resumed = zero.initialize(_model(base, lora_rank=lora_rank), settings)
    shards.read(resumed, tmp_path)
    zero.step(resumed, _losses(resumed, 1), RATE)
    straight, again = zero.full_state(engine), zero.full_state(resumed)
    assert all(torch.equal(straight[name], again[name]) for name in straight)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*"))
    weights = sum(tensor.numel() * 4 for tensor in straight.values())
    # With LoRA, the checkpoint does not contain the frozen weights.
    assert size < weights / 4 if lora_rank else size > weights


def test_bfloat16_keeps_float32_masters(base: Path) -> None:
    """Updates that are too small for bfloat16 accumulate in the float32 master weights."""
    model = _model(base, dtype="bfloat16")
    engine = zero.initialize(model, zero.ZeroSettings(2, "bfloat16", 2e-6))
    before = zero.full_state(engine)["lm_head.weight"].float()
    for _ in range(30):
        zero.step(engine, _losses(engine, 1), 2e-6)
    after = zero.full_state(engine)["lm_head.weight"]
    assert after.dtype == torch.bfloat16
    moved = (after.float() - before).abs()
    assert moved.max() > 0 and (moved > 0).float().mean() > 1e-3


def test_a_fresh_state_is_the_base_and_a_copy(base: Path) -> None:
    engine = zero.initialize(_model(base, lora_rank=4), zero.ZeroSettings(2, "float32", RATE))
    state = zero.full_state(engine)
    whole = _model(base).state_dict()
    assert state.keys() == whole.keys() and all(
        torch.equal(state[name], whole[name]) for name in whole
    )
    zero.step(engine, _losses(engine, 0), RATE)
    assert all(torch.equal(state[name], whole[name]) for name in whole)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_rank_alone_owns_every_weight(base: Path, stage: int) -> None:
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    engine = zero.initialize(_model(base), settings)
    zero.step(engine, _losses(engine, 0), RATE)
    found = {
        part.name: part.values.reshape(part.shape) for part in zero.owned(engine, torch.bfloat16)
    }
    wanted = zero.full_state(engine)
    then = {name: tensor.to(torch.bfloat16) for name, tensor in wanted.items()}
    assert found.keys() == then.keys()
    assert all(torch.equal(found[name], then[name]) for name in then)
    zero.step(engine, _losses(engine, 1), RATE)
    # The parts are copies of the weights, so a further training step does not change the parts.
    assert all(torch.equal(found[name], then[name]) for name in then)


@pytest.mark.parametrize("stage", [2, 3])
def test_with_adapters_these_alone_are_owned(base: Path, stage: int) -> None:
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    engine = zero.initialize(_model(base, lora_rank=4), settings)
    zero.step(engine, _losses(engine, 0), RATE)
    found = {
        part.name: part.values.reshape(part.shape) for part in zero.owned(engine, torch.float32)
    }
    assert found and all(is_adapter(name) for name in found)
    scale = lora.scale(engine.module)
    assert scale is not None
    whole, start = zero.full_state(engine), dict(_model(base).state_dict())
    changed, went = fold_adapter(found, scale, start, QWEN2_5_VL.current_name)
    assert went.keys() == found.keys() and {*went.values()} == changed.keys()
    assert changed.keys() == {name for name in whole if not torch.equal(whole[name], start[name])}
    assert all(torch.equal(changed[name], whole[name]) for name in changed)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_policy_computes_with_what_is_published(base: Path, stage: int) -> None:
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    engine = zero.initialize(_model(base), settings)
    zero.step(engine, _losses(engine, 0), RATE)
    exact = zero.full_state(engine)
    served = _model(base)
    served.load_state_dict(
        {name: tensor.to(torch.bfloat16).float() for name, tensor in exact.items()}
    )
    ids_BT = torch.randint(20, 60, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = engine(input_ids=ids_BT).logits
        with zero.rounded(engine, torch.bfloat16):
            rounded = engine(input_ids=ids_BT).logits
        torch.testing.assert_close(rounded, served(input_ids=ids_BT).logits, atol=2e-5, rtol=0)
        assert (rounded - before).abs().max() > 1e-3
        assert torch.equal(engine(input_ids=ids_BT).logits, before)
    after = zero.full_state(engine)
    assert all(torch.equal(after[name], exact[name]) for name in exact)
