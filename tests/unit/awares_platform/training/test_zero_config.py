"""Tests the DeepSpeed configuration that follows from the settings of a training job."""

import pytest

from awares_platform.training.zero import ZeroSettings, deepspeed_config


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_stage_and_precision_are_those_of_the_settings(stage: int) -> None:
    settings = ZeroSettings(stage, "bfloat16", 1e-3)  # type: ignore[arg-type]
    config = deepspeed_config(settings, elements=10, hidden=128, gpu=False)
    assert config["zero_optimization"]["stage"] == stage
    assert config["bf16"] == {"enabled": True}
    assert config["zero_allow_untested_optimizer"] and not config["zero_force_ds_cpu_optimizer"]


def test_buckets_do_not_exceed_the_model() -> None:
    settings = ZeroSettings(2, "float32", 1e-3)
    tiny = deepspeed_config(settings, elements=1_800_000, hidden=128, gpu=False)
    large = deepspeed_config(settings, elements=7_000_000_000, hidden=3584, gpu=False)
    assert tiny["zero_optimization"]["reduce_bucket_size"] == 1_800_000
    assert large["zero_optimization"]["reduce_bucket_size"] == 50_000_000


@pytest.mark.parametrize(
    ("stage", "gpu", "overlaps"),
    [(1, True, False), (2, True, True), (3, True, True), (2, False, False)],
)
def test_communication_overlaps_where_deepspeed_can(stage: int, gpu: bool, overlaps: bool) -> None:
    settings = ZeroSettings(stage, "float32", 1e-3)  # type: ignore[arg-type]
    config = deepspeed_config(settings, elements=10, hidden=8, gpu=gpu)
    assert config["zero_optimization"]["overlap_comm"] is overlaps
