"""Tests the learner's speed against values computed by hand, and the sizes of the mini policy."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from awares.batch import Batch
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini import POLICY
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.grpo.learner_speed import LearnerSpeed, step_work
from awares_platform.method.flops import Pass, language_flops, tower_flops
from awares_platform.plan.geometry import geometry
from awares_platform.training.lora import attach
from awares_platform.training.speed import LoadedSizes, measured_peak, peak_flops, sizes_of

SIZES = LoadedSizes(layers=2, hidden=4, layer_parameters=100, vision_parameters=50, merge=2)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Run the test as the only rank of a process group of torch.distributed."""
    place = f"file://{tmp_path}/group"
    torch.distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def batch() -> Batch:
    """Return sequences of 5 and 3 tokens, which show the same view of 4 x 4 patches."""
    blank = torch.zeros(2, 5)
    return Batch(
        input_ids_BT=blank.long(),
        attention_mask_BT=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        mm_token_type_ids_BT=blank.long(),
        pixel_values_ND=torch.zeros(32, 1),
        image_grid_thw_I3=torch.tensor([[1, 4, 4], [1, 4, 4]]),
        image_views_I=torch.tensor([0, 0]),
        action_mask_BT=blank.bool(),
        behaviour_logprobs_BT=blank,
        weights_BT=blank,
        versions_BT=blank.long(),
    )


def test_the_figures_of_a_step_by_hand(group: None, batch: Batch) -> None:
    work = step_work(GrpoConfig(kl_beta=0.1), PolicyConfig(), SIZES)
    assert (work.language, work.tower) == (Pass(2, 1, 1), Pass(1, 0, 0))
    speed = LearnerSpeed(work, peak=1e6)
    speed.count(batch, filler=False)
    speed.count(batch, filler=True)
    language = 2 * 100 * 8 * (2 * 4) + 2 * 2 * 4 * (5**2 + 3**2) * (2 + 2)
    tower = 50 * 16 * 2
    assert speed.reduced(2.0) == pytest.approx(
        {
            "learner/tokens_per_s": 8 / 2,
            "learner/tflops": (language + tower) / 2 / 1e12,
            "learner/mfu": (language + tower) / 2 / 1e6,
            "learner/padding": 1 - 8 / 20,
        }
    )
    speed.reset()
    assert speed.reduced(1.0) == {}


def test_a_packed_pass_has_no_padding(group: None, batch: Batch) -> None:
    work = replace(step_work(GrpoConfig(), PolicyConfig(), SIZES), packed=True)
    speed = LearnerSpeed(work, peak=1e6)
    speed.count(batch, filler=False)
    assert speed.reduced(1.0)["learner/padding"] == 0.0


def test_the_sizes_of_the_loaded_mini_policy_are_those_of_its_config() -> None:
    """Check the sizes of a model with adapters, which must not change the sizes."""
    shape = geometry("mini", QWEN2_5_VL)
    model, _ = QWEN2_5_VL.load_model(Path(POLICY), dtype=torch.float32, local_files_only=True)
    attach(model, QWEN2_5_VL, rank=2, alpha=4.0, targets=(), seed=0)
    found = sizes_of(model, QWEN2_5_VL)
    names = ("layers", "hidden", "layer_parameters", "vision_parameters", "merge")
    assert [getattr(found, name) for name in names] == [getattr(shape, name) for name in names]
    work = Pass(2, 1, 0)
    assert language_flops(found, 7, work) == language_flops(shape, 7, work)
    assert tower_flops(found, 7, work) == tower_flops(shape, 7, work)


def test_a_cpu_is_measured_in_float32() -> None:
    device = torch.device("cpu")
    ratio = peak_flops(device, torch.bfloat16) / measured_peak(device, torch.float32)
    assert 0.1 < ratio < 10  # Other processes may disturb a measurement.
