"""Tests the memory that the plan computes for trainers and engines.

The expected values come from the ZeRO paper or from hand computation.
"""

from dataclasses import replace

import pytest

from awares.errors import ConfigError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.whole_image import WholeImage
from awares_platform.config import PlatformConfig
from awares_platform.method.environment import system_prompt, vision_limits
from awares_platform.plan import engine as plan_engine
from awares_platform.plan import make
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.caches import caches
from awares_platform.plan.engine import EngineMemory, engine_memory
from awares_platform.plan.geometry import KNOWN
from awares_platform.plan.lengths import Lengths, lengths
from awares_platform.plan.trainer import (
    Trainer,
    activations,
    buffers,
    layer,
    logits,
    memory,
    trained_parameters,
    trainer,
)
from tests.unit.awares_platform.plan.paper import SMALL, setup

RANK = Trainer(
    trained=7_500_000_000,
    frozen=0,
    ranks=64,
    stage=0,
    weight=2,
    batch=2,
    width=10,
    scored=3,
    checkpointing=False,
    vision=False,
    reference=False,
)


def tokens_of(config: PlatformConfig) -> Lengths:
    max_tokens = config.grpo.max_tokens
    limits = vision_limits(config.method, QWEN2_5_VL)
    return lengths(config.method, config.engine, max_tokens, limits, Assumptions())


def engine_of(config: PlatformConfig) -> EngineMemory:
    wanted = config.grpo.groups_in_flight * config.grpo.group_size
    rank, tokens = config.policy.lora_rank, tokens_of(config)
    return engine_memory(config.engine, rank, wanted, KNOWN["7B"], tokens, Assumptions())


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    """Compare the sum of weights, gradients and optimizer states with the ZeRO paper.

    Figure 1 of arXiv 1910.02054 gives the sum for 7.5 B parameters on 64 ranks.
    """
    used = memory(replace(RANK, stage=stage), KNOWN["7B"], overhead_gib=0)
    assert round((used.weights + used.gradients + used.optimizer) / 1e9, 1) == gigabytes


def test_only_stage_3_shards_frozen_weights_and_they_have_no_other_state() -> None:
    rank = replace(RANK, trained=1000, frozen=9000, ranks=4, stage=2)
    two, three = (memory(replace(rank, stage=stage), SMALL, 0) for stage in (2, 3))
    assert (two.weights, two.gradients, two.optimizer) == (20_000, 500, 3_000)
    assert (three.weights, three.gradients, three.optimizer) == (5_000, 500, 3_000)


def test_a_reference_is_a_whole_copy_on_every_rank_unless_stage_3_partitions_it() -> None:
    assert memory(replace(RANK, reference=True, stage=2), SMALL, 0).reference == 15e9
    assert memory(replace(RANK, reference=True, stage=3), SMALL, 0).reference == 15e9 / RANK.ranks
    full, lora = setup("policy.lora_rank=0"), setup()
    assert trainer(full.policy, full.grpo, KNOWN["7B"], 100, 10).reference
    assert not trainer(full.policy, full.sft, KNOWN["7B"], 100, 10).reference
    assert not trainer(lora.policy, lora.grpo, KNOWN["7B"], 100, 10).reference


def test_a_rank_takes_the_settings_of_its_job() -> None:
    config = setup("sft.workers=4", "grpo.learner_workers=2", "sft.micro_batch=8")
    sft = trainer(config.policy, config.sft, KNOWN["7B"], 100, 400)
    learner = trainer(config.policy, config.grpo, KNOWN["7B"], 100, 400)
    assert (sft.ranks, sft.batch, sft.width, sft.scored) == (4, 8, 100, 100)
    assert (learner.ranks, learner.batch) == (2, config.grpo.micro_batch)


def test_activations_per_token() -> None:
    kept = 2 * (6 * 8 + 2 * 4 + 4 * 16) + 8 * 8
    block = 2 * (8 * 4 + 4 * 6) + 8 * 4
    pixels = 4 * (3 * 2 * 14 * 14) * 4
    assert (kept, block) == (304, 144)
    assert activations(RANK, SMALL) == 2 * 10 * (pixels + 3 * kept)
    inputs = 3 * 2 * 8
    checkpointed = replace(RANK, checkpointing=True)
    assert activations(checkpointed, SMALL) == 2 * 10 * (pixels + inputs)
    tower = 4 * (5 * block + 7 * 2 * 4)
    assert activations(replace(RANK, vision=True), SMALL) == 2 * 10 * (pixels + 3 * kept + tower)


def test_a_layers_backward_pass_recomputes_what_a_checkpoint_dropped() -> None:
    gradients = 2 * 2 * 16
    assert layer(RANK, SMALL) == 2 * 10 * gradients
    assert layer(replace(RANK, checkpointing=True), SMALL) == 2 * 10 * (304 + gradients)
    wide = replace(SMALL, v_intermediate=60)
    block = 2 * (8 * 4 + 4 * 60) + 8 * 4
    vision = replace(RANK, checkpointing=True, vision=True)
    assert layer(vision, wide) == 2 * 10 * 4 * (block + 2 * 2 * 60)


def test_logits_count_scored_positions_only() -> None:
    assert logits(RANK, SMALL) == 2 * 3 * 100 * 16


def test_logits_and_layers_peak_at_different_times() -> None:
    rank = replace(RANK, checkpointing=True)
    few, many = (memory(replace(rank, scored=scored), SMALL, 0) for scored in (1, 10))
    assert few.logits < few.layer < many.logits
    kept = few.weights + few.gradients + few.optimizer + few.buffers + few.activations
    assert few.total == kept + few.layer
    assert many.total == kept + many.logits


def test_buffers() -> None:
    small = replace(RANK, trained=1000, ranks=4)
    assert buffers(replace(small, stage=2), SMALL) == 3 * 2 * 1000 + 4 * 1000 / 4
    embedding = 2 * 8 * 100
    assert buffers(replace(small, stage=3), SMALL) == 7000 + embedding
    assert buffers(RANK, SMALL) == 3 * 2 * 50_000_000 + 4 * 7_500_000_000


@pytest.mark.parametrize(
    ("overrides", "trained", "frozen"),
    [
        ((), 20_185_088, 8_292_166_656),
        (("policy.lora_rank=0",), 8_292_166_656 - 676_550_144, 676_550_144),
        (("policy.lora_rank=0", "policy.train_vision=true"), 8_292_166_656, 0),
    ],
)
def test_trained_and_frozen_parameters(overrides: tuple, trained: int, frozen: int) -> None:
    assert trained_parameters(setup(*overrides).policy, KNOWN["7B"]) == (trained, frozen)


def test_the_bucket_is_the_trainers() -> None:
    from awares_platform.plan import trainer as plan
    from awares_platform.training import zero

    assert plan.BUCKET == zero._BUCKET


def test_tokens_of_a_page_are_those_of_the_processor() -> None:
    tokens = tokens_of(setup())
    assert (tokens.low, tokens.crop, tokens.full) == (20 * 26, 20 * 26, 39 * 51)
    assert (tokens.plain, tokens.reply) == (tokens.text + 520 + 16, 16 + 2)
    assert tokens.called == tokens.plain + 18 + 520 + 16
    assert tokens.mean == pytest.approx(tokens.plain + 0.29 * (18 + 520 + 16))
    prompt = len(system_prompt(setup().method)) // 4 + 64
    assert tokens.widest == prompt + 4096 + (16 + 5 * 2) + 2 * 512 < 8192
    assert (tokens.largest.tokens, tokens.largest.images) == (tokens.widest, 5)


def test_the_prompt_of_another_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the plan refuses an environment whose system prompt is too long.

    The validation of the configuration does not know this prompt.
    """
    config = setup("method.environment=awares.whole_image:WholeImage")
    prompt = len(system_prompt(config.method)) // 4
    assert prompt > 100 and tokens_of(config).largest.prompt == prompt + 64
    monkeypatch.setattr(WholeImage, "system_prompt", "word " * 5000)
    [fault] = make(config, Assumptions()).faults
    assert fault.startswith("the longest legal episode has ")
    assert "engine.max_model_len=8192; raise it" in fault


def test_budget_and_turns_bound_the_longest_sequence() -> None:
    tokens = tokens_of(setup("method.max_visual_tokens=3000"))
    assert tokens.widest == tokens_of(setup()).widest - 4096 + 3000
    alone = tokens_of(setup("method.max_turns=1"))
    assert alone.mean == alone.text + 520 + 16


def test_the_size_of_the_cache_bounds_the_episodes() -> None:
    used = engine_of(setup("engine.kv_cache_gib=2", "engine.max_requests=16"))
    assert used.kv == 2 * 2**30 and used.kv_token == 57_344
    assert used.longest == 2 * 2**30 // 57_344 // 8192 == 4
    assert used.typical == 37_449 // 1285 == 29
    assert (used.wanted, used.at_once) == (16 * 8, 16)


def test_an_engine_of_16_bits_has_slots_for_adapters() -> None:
    from awares_platform.engine import adapters

    assert (plan_engine.SLOTS, plan_engine.RANKS) == (adapters.SLOTS, adapters._RANKS)
    whole = KNOWN["7B"].adapter_parameters(16, ())
    assert plan_engine.adapter_slots("bfloat16", 12, KNOWN["7B"]) == 2 * 2 * whole
    assert plan_engine.adapter_slots("float32", 12, KNOWN["7B"]) == 0
    assert plan_engine.adapter_slots("bfloat16", 0, KNOWN["7B"]) == 0
    with_adapter, without = engine_of(setup()), engine_of(setup("policy.lora_rank=0"))
    assert with_adapter.adapters == 2 * 2 * 20_185_088
    assert without.kv - with_adapter.kv == pytest.approx(with_adapter.adapters)


def test_the_encoder_cache_holds_the_tokens_of_a_pass() -> None:
    assert engine_of(setup()).encoder == 2 * 3584 * 8192
    assert engine_of(setup("engine.max_batched_tokens=1024")).encoder == 2 * 3584 * 39 * 51


def test_temporary_tensors_are_those_of_a_pass_or_of_a_canary() -> None:
    """Check that the plan counts the larger of two peaks: `workspace` and `scoring`.

    `workspace` is the peak of a forward pass, and `scoring` is the peak while the engine scores a
    canary.
    """
    tokens, wide = tokens_of(setup()), engine_of(setup())
    # The canary's longest prompt has a crop of 1,040 tokens, twice as many as a typical crop.
    prompt = tokens.called + 520
    assert wide.scoring == prompt * 152_064 * (2 + 4 + 2 + 4 + 1) > wide.workspace
    assert wide.temporary == wide.scoring
    narrow = engine_of(setup("engine.max_batched_tokens=64"))
    assert narrow.scoring == 64 * 152_064 * 13 < narrow.workspace == narrow.temporary
    vision = 2 * 4 * (4 * 1280 + 2 * 3420) * 39 * 51
    language = 2 * (4 * 3584 + 2 * 18_944) * 64
    assert narrow.workspace == vision + language + 2 * 4 * 64 * 152_064


def test_caches_are_those_of_the_processes() -> None:
    from awares_platform.data import images
    from awares_platform.grpo import pixels

    config = setup("engine.view_cache_gib=0.5")
    sizes = caches(KNOWN["7B"], tokens_of(config), config.engine)
    assert (sizes.views, sizes.images) == (pixels.CACHE_BYTES, images.MEMORY_BYTES)
    assert sizes.processed == 2**29
    assert (sizes.view, sizes.page) == (520 * 4 * 1176 * 4, 39 * 51 * 4 * 1176 * 4)


def test_tensor_parallelism_divides_weights_and_cache() -> None:
    one, two = engine_of(setup()), engine_of(setup("engine.tensor_parallel=2"))
    assert (two.weights, two.kv_token) == (one.weights / 2, one.kv_token / 2)
    message = r"engine.tensor_parallel=8 does not divide the policy's 28 attention heads"
    with pytest.raises(ConfigError, match=message):
        engine_of(setup("engine.tensor_parallel=8"))
