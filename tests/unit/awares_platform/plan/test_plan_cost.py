"""Tests a plan's traffic and hours against hand computation.

This file also tests the printed sheet, and the setups that `awares plan` refuses.
"""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig, load
from awares_platform.method.flops import Pass, language_flops, tower_flops
from awares_platform.plan import Assumptions, make, render
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.traffic import (
    ADAPTER_ANCHOR,
    ADAPTER_DELTA,
    CHANGED,
    USELESS,
    Traffic,
    between,
    per_version,
    period,
    traffic,
)
from tests.unit.awares_platform.plan.paper import ROOT, SMALL, setup


def traffic_of(config: PlatformConfig, trained: int, **assumed: Any) -> Traffic:
    dtype = config.engine.dtype
    return traffic(config.grpo, config.policy, dtype, trained, Assumptions(**assumed))


def test_interpolation() -> None:
    points = ((1.0, 10.0), (3.0, 30.0))
    assert [between(points, x) for x in (0.5, 1.0, 2.0, 3.0, 9.0)] == [10.0, 10.0, 20.0, 30.0, 30.0]
    assert between(CHANGED, 1e-5, log=True) == pytest.approx(0.094)
    assert between(CHANGED, 10**-4.5, log=True) == pytest.approx((0.094 + 0.43) / 2)


def test_the_measured_shares_are_those_of_the_benchmark() -> None:
    lines = (ROOT / "platform/docs/weights.md").read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| [^|]*AdamW,? \d", line)]
    assert len(rows) == 3
    for row, (rate, share) in zip(rows, CHANGED, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert float(cells[0].split()[-1]) == rate
        assert float(cells[1].rstrip(" %")) / 100 == pytest.approx(share)
        config = setup("policy.lora_rank=0", f"grpo.learning_rate={rate}")
        encoded = float(cells[2].rstrip(" %")) / 100
        assert traffic_of(config, 10**9).delta / 2e9 == pytest.approx(encoded, rel=0.01)


def test_traffic_of_a_full_run() -> None:
    bus = traffic_of(setup("policy.lora_rank=0"), 10**9)
    assert bus.delta == pytest.approx(0.0405 * 2e9)
    assert bus.anchor == pytest.approx(0.78 * 2e9)
    assert bus.weights_up == pytest.approx(0.0405 * 2e9 + 0.78 * 2e9 / 16)
    assert bus.weights_down == pytest.approx(2 * 0.0405 * 2e9)  # Two actors read the delta.
    assert bus.images == 2 * 8 * 0.5e6
    assert bus.checkpoints == pytest.approx(12e9 / 10)


def test_large_deltas_bring_the_anchor_sooner() -> None:
    from awares_platform.weights import cadence

    assert USELESS == cadence._USELESS
    for delta in (1, 5, 6, 40, 60):
        costs, versions = cadence.ChainCost(anchor=100), 1
        while not costs.want_anchor(16):
            costs.deltas.append(delta)
            versions += 1
        assert versions - 1 in (period(delta, 100, 16), period(delta, 100, 16) - 1)


@pytest.mark.parametrize("delta", [1.0, 5.0, 40.0, 60.0, 71.0, 78.0, 100.0])
def test_the_mean_version_is_that_of_the_writer(delta: float) -> None:
    """Compare `per_version` with a simulation of the writer over 4,800 versions.

    If a delta is larger than 0.7 times an anchor (all weights), a version with an anchor has no
    delta.
    """
    from awares_platform.weights import cadence

    costs, up, down, versions = cadence.ChainCost(anchor=100), 0.0, 0.0, 4800
    for _ in range(versions):
        anchor = costs.want_anchor(16)
        without = anchor and costs.last > cadence._USELESS * 100
        up += 100 * anchor + delta * (not without)
        down += 100 if without else delta
        if anchor:
            costs.deltas.clear()
        else:
            costs.deltas.append(delta)  # type: ignore[arg-type]
    assert per_version(delta, 100.0, 16) == pytest.approx((up / versions, down / versions), rel=0.1)


def test_the_sizes_of_an_adapters_versions_are_those_of_the_benchmark() -> None:
    page = (ROOT / "platform/docs/weights.md").read_text()
    lines = page.split("<!-- adapter-bytes:begin -->")[1].split("<!--")[0].splitlines()
    rows = [[cell.strip(" %") for cell in line.strip("|").split("|")] for line in lines[3:]]
    found = {(float(row[0]), int(row[1])): [float(cell) / 100 for cell in row[2:]] for row in rows}
    for rate, delta in ADAPTER_DELTA:
        assert found[rate, 5][0] == pytest.approx(delta, abs=0.01)
        assert max(found[rate, step][0] for step in (1, 2, 5, 10, 50, 200)) < delta + 0.01
        assert found[rate, 50][1] == pytest.approx(ADAPTER_ANCHOR, abs=0.01)


def test_traffic_of_an_adapter() -> None:
    bus = traffic_of(setup(), 20_185_088)
    raw = 2 * 20_185_088
    assert (bus.raw, bus.changed) == (raw, None)
    assert (bus.delta, bus.anchor) == (pytest.approx(0.33 * raw), pytest.approx(0.65 * raw))
    # Two deltas have more bytes than an anchor, which holds all weights, so every second version
    # has an anchor as well.
    assert bus.weights_up == pytest.approx(0.33 * raw + 0.65 * raw / 2)
    with pytest.raises(ConfigError, match=r"--changed-share 0.1 has no effect on an adapter"):
        traffic_of(setup(), 20_185_088, changed_share=0.1)


def test_a_stated_share_replaces_the_measured_one() -> None:
    bus = traffic_of(setup("policy.lora_rank=0"), 10**9, changed_share=0.43)
    assert (bus.changed, bus.delta) == (0.43, pytest.approx(0.144 * 2e9))


def test_flops_of_a_sequence() -> None:
    full, frozen = Pass(1, 1, 1), Pass(1, 0, 0)
    assert SMALL.layer_parameters == 64 + 32 + 32 + 64 + 3 * 128 + 8 + 8 + 16
    language = 6 * 3 * 608 * 50 + 3 * (2 * 3 * 8 * 50 * 50)
    assert language_flops(SMALL, 50, full) == language
    assert tower_flops(SMALL, 20, frozen) == 2 * SMALL.vision_parameters * 20 * 4


def test_hours_follow_from_flops() -> None:
    base = make(setup(), Assumptions())
    sft, grpo = base.hours["sft"], base.hours["grpo"]
    assert (sft.steps, sft.gpus, grpo.steps, grpo.gpus) == (2 * 391, 8, 6250, 8)
    assert sft.hours == pytest.approx(sft.steps * sft.ranks.seconds / 3600)
    assert sft.gpu_hours == pytest.approx(8 * sft.hours)
    assert grpo.step_s == max(grpo.ranks.seconds, grpo.rollout_s)
    waits = (grpo.step_s - grpo.ranks.seconds, grpo.step_s - grpo.rollout_s)
    assert (grpo.learner_waits, grpo.rollouts_wait) == waits
    assert min(waits) == 0
    synchronous = make(setup("grpo.staleness_bound=0"), Assumptions()).hours["grpo"]
    # A synchronous learner waits for the images of its longest pass: one image and eight crops. The
    # asynchronous learner above has its images ready and does not wait.
    images = 0.120 + 8 * 0.025
    assert (grpo.ranks.images_s, synchronous.ranks.images_s) == (0, pytest.approx(images))
    assert synchronous.ranks.seconds == pytest.approx(grpo.ranks.seconds + images)
    assert synchronous.step_s == pytest.approx(synchronous.ranks.seconds + grpo.rollout_s)
    assert synchronous.learner_waits == pytest.approx(grpo.rollout_s)
    assert synchronous.rollouts_wait == pytest.approx(synchronous.ranks.seconds)
    # One actor is slower than the seven ranks, so the images of a batch are never ready early.
    late = make(setup("grpo.learner_workers=7", "grpo.rollout_actors=1"), Assumptions())
    assert late.hours["grpo"].ranks.images_s == pytest.approx(0.120 + 7 * 0.025)
    assert late.hours["grpo"].learner_waits > 0


def test_learning_takes_the_flops_of_the_widest_pass() -> None:
    sheet = make(
        setup("grpo.micro_tokens=none", "grpo.micro_batch=64", "grpo.learner_workers=1"),
        Assumptions(image_ms=0, crop_ms=0),
    )
    tokens, shape, ranks = sheet.lengths, sheet.shape, sheet.hours["grpo"].ranks
    language = shape.layers * shape.layer_parameters * tokens.called * 6
    attention = 2 * 28 * 3584 * tokens.called**2 * 4
    # The policy and the reference share one pass of the vision tower. In this pass, the tower
    # computes each group's low view once.
    visual = 8 * tokens.low + 19 * tokens.crop
    tower = shape.vision_parameters * visual * 4 * 2
    assert (ranks.passes, ranks.images_s) == (1, 0)
    assert ranks.seconds == pytest.approx((64 * (language + attention) + tower) / (989e12 * 0.3))


@pytest.mark.parametrize(
    ("override", "runs", "low_views", "crops"),
    [
        ("grpo.zero_stage=2", 1, 8, 19),
        ("grpo.minibatches=2", 2, 8, 18),
        ("grpo.zero_stage=3", 2, 64, 19),
        ("policy.train_vision=true", 4, 64, 19),
    ],
)
def test_the_towers_time(
    override: str, runs: int, low_views: int, crops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check how often the vision tower runs.

    - With two minibatches, the proximal policy adds a run.
    - With ZeRO stage 3 or a trained tower, the reference policy adds a run, and each episode
      computes its own low view.
    - The backward pass of a trained tower costs as much as two runs.
    """
    whole = ("policy.lora_rank=0", "grpo.micro_tokens=none", "grpo.micro_batch=64")
    config = setup(*whole, "grpo.learner_workers=1", override)
    assumed = Assumptions(image_ms=0, crop_ms=0)
    sheet = make(config, assumed)
    views = low_views * sheet.lengths.low + crops * sheet.lengths.crop
    flops = 2 * runs * sheet.shape.vision_parameters * 4 * views
    monkeypatch.setattr(Geometry, "vision_parameters", 0)
    rest = make(config, assumed).hours["grpo"].ranks.seconds
    assert sheet.hours["grpo"].ranks.seconds - rest == pytest.approx(flops / (989e12 * 0.3))


def test_rollouts_wait_for_their_images() -> None:
    grpo = make(setup("grpo.rollout_actors=1"), Assumptions()).hours["grpo"]
    assert grpo.views_s == pytest.approx(8 * 0.120 + 64 * 0.29 * 0.025)
    assert grpo.rollout_s == pytest.approx(grpo.load_s + grpo.views_s)
    quick = make(setup("grpo.rollout_actors=1"), Assumptions(image_ms=1)).hours["grpo"]
    assert quick.load_s + quick.views_s < quick.rollout_s < grpo.rollout_s
    two = make(setup("grpo.rollout_actors=2"), Assumptions()).hours["grpo"]
    assert two.views_s == pytest.approx(grpo.views_s / 2)


def test_rewards_need_workers() -> None:
    sheet = make(setup(), Assumptions(reward_ms=40))
    assert sheet.reward_cpus == pytest.approx(64 * 0.040 / sheet.hours["grpo"].step_s)
    assert 1.6 < sheet.reward_cpus < 2.4
    assert "set grpo.reward_workers=3 or more" in render(sheet)
    enough = render(make(setup("grpo.reward_workers=3"), Assumptions(reward_ms=40)))
    assert "of 3 reward workers\n" in enough and "grpo.reward_workers" not in enough


def test_a_new_adapter_pauses_the_rollouts() -> None:
    grpo = make(setup(), Assumptions()).hours["grpo"]
    assert grpo.load_s == pytest.approx(2 * 20_185_088 / 195e6)
    slow = make(setup(), Assumptions(adapter_mbs=19.5)).hours["grpo"]
    assert slow.rollout_s - grpo.rollout_s == pytest.approx(9 * grpo.load_s)
    assert make(setup("policy.lora_rank=0"), Assumptions()).hours["grpo"].load_s == 0


def test_a_run_with_an_adapter_exports_it_too() -> None:
    exports = make(setup(), Assumptions()).exports
    assert exports == {"policy": 2 * 8_292_166_656, "adapter": 2 * 20_185_088}
    assert [*make(setup("policy.lora_rank=0"), Assumptions()).exports] == ["policy"]


def test_a_policy_of_one_turn_has_no_second_turn() -> None:
    table = render(make(setup("method.max_turns=1"), Assumptions()))
    assert "turn 1 reads 715 tokens and samples 16\n" in table and "turn 2" not in table
    assert "1 image of engine.max_images=5" in table


def test_the_largest_legal_episode_is_printed() -> None:
    table = render(make(setup(), Assumptions()))
    assert "5,365 tokens of engine.max_model_len=8,192, 5 images of engine.max_images=5" in table


def test_every_fault_has_remedies() -> None:
    sheet = make(setup("policy.lora_rank=0"), Assumptions(gpu_gib=39.5))
    parts = [fault.split(" needs ")[0] for fault in sheet.faults[:2]]
    assert parts == ["a rank of sft", "a rank of grpo"]
    assert "try grpo.zero_stage=3, grpo.micro_tokens=6144, policy.lora_rank=8" in sheet.faults[1]
    assert "DOES NOT FIT: a rank of grpo" in render(sheet)
    small = make(setup(), Assumptions(gpu_gib=22))
    cache = "the KV cache has 0.0 GiB, too little for one sequence of engine.max_model_len=8192"
    assert any(fault.startswith(cache) for fault in small.faults)


def test_the_papers_setup_fits_its_gpus_and_the_table_has_140_columns() -> None:
    table = render(make(setup(), Assumptions()))
    assert "It fits GPUs of 79.6 GiB." in table and "DOES NOT" not in table
    assert max(len(line) for line in table.splitlines()) <= 140


@pytest.mark.parametrize("name", ["awares-7b-paper", "awares-7b-native"])
def test_the_other_setups_fit_their_gpus(name: str) -> None:
    table = render(make(load(name), Assumptions()))
    assert "It fits GPUs of 79.6 GiB." in table
    assert ("WARNING: low view and one crop: mean RTR 1.18" in table) is (name == "awares-7b-paper")
    assert max(len(line) for line in table.splitlines()) <= 140


def test_the_ratios_are_those_of_the_data_sets_images() -> None:
    sheet = make(setup(), Assumptions(), [(850, 600), (300, 100), (1700, 2200)])
    assert "RTR over 3 images: low view" in render(sheet)
    assert sheet.as_json()["tokens"]["rtr_by_view"] == sheet.ratios.mean
    assert sheet.as_json()["warnings"] == sheet.ratios.warnings != []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpu_gib": 0}, "--gpu-gib 0: give a positive number"),
        ({"rollout_hbm_gbs": 0.0}, "--rollout-hbm-gbs 0.0: give a positive number"),
        ({"peak_tflops": float("nan")}, "--peak-tflops nan: give a positive number"),
        ({"overhead_gib": -1.0}, "--overhead-gib -1.0: give a positive number"),
        ({"train_mfu": 1.5}, "--train-mfu 1.5: it is a share: give a number between 0 and 1"),
        ({"prefill_mfu": 0.0}, "--prefill-mfu 0.0: it is a share"),
        ({"call_rate": 2}, "--call-rate 2: it is a share"),
        ({"changed_share": 1.1}, "--changed-share 1.1: it is a share"),
        (
            {"image": "1700*2200"},
            r"--image 1700\*2200: write width x height in pixels, such as 1700x2200",
        ),
        ({"image": "0x10"}, "--image 0x10: write width x height"),
        ({"crop": "9"}, "--crop 9: give one of 0, 1, 2"),
    ],
)
def test_bad_assumptions_are_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Assumptions(**values).check()


def test_a_setup_for_cpus_is_refused() -> None:
    message = "grpo.learner_gpus=0.*a plan is for GPUs; set them to true, 1 and 1"
    with pytest.raises(ConfigError, match=message):
        make(load(ROOT / "jobs/configs/mini.toml"), Assumptions())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `awares plan` in a new process, and return the finished process.

    The process writes the list of imported heavy modules to stderr.
    """
    script = (
        "import sys\n"
        "from awares_platform.cli import main as cli\n"
        "heavy = ('torch', 'ray', 'vllm', 'boto3')\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "plan", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_prints_json_and_imports_nothing_heavy() -> None:
    result = run("--json", "--gpu-gib", "39.5", "grpo.zero_stage=3")
    figures = json.loads(result.stdout)
    assert result.stderr.strip() == "[]"
    assert figures["policy"]["parameters"] == 8_292_166_656
    assert figures["assumptions"]["gpu_gib"] == 39.5
    by_stage = figures["trainer_bytes_by_zero_stage"]["grpo"]
    assert figures["trainer_bytes"]["grpo"]["total"] == by_stage["3"]


def test_the_command_refuses_in_one_line() -> None:
    result = run("--train-mfu", "2")
    message = "awares plan: --train-mfu 2.0: it is a share: give a number between 0 and 1"
    assert result.stderr.splitlines()[0] == message
