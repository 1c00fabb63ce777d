"""Tests a LoRA run in bfloat16, from SFT to evaluation.

Ray, vLLM, DeepSpeed and SeaweedFS are real, and the loss is GSPO. The run leaves out three of four
questions, which do not fit the engine's context.
"""

import asyncio
import json
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from safetensors.torch import load, save

from awares.episode import Episode, StopReason
from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.method import MethodConfig
from awares_platform.data.dataset import ensure_mini, read_samples, write_samples
from awares_platform.engine.canary import CanaryMismatch
from awares_platform.engine.exported_load import Exported
from awares_platform.evaluate.evaluator import Evaluator
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.grpo.job import run
from awares_platform.grpo.reward_actor import RemoteWorker
from awares_platform.grpo.rewarding import RewardPool
from awares_platform.grpo.scoring import Scoring
from awares_platform.method import environment
from awares_platform.method.reward import build_reward
from awares_platform.runtime.session import session as open_session
from awares_platform.sft import job as sft
from awares_platform.store import ObjectStore
from awares_platform.training.export import adapter_key, read_meta
from awares_platform.training.identity import combined
from awares_platform.training.inputs import INPUTS
from awares_platform.training.source import resolve_adapter
from awares_platform.weights import Subscriber
from awares_platform.weights.adapter import WEIGHTS_FILE, rank_in, read_peft, write_peft

pytestmark = [pytest.mark.integration, pytest.mark.slow]
STEPS = 5
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_lora_run_is_played_and_evaluated_as_an_adapter(
    seaweed: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    settings = {
        "run": {"name": "grpo-adapter", "directory": str(tmp_path / "runs")},
        "store": {
            "url": "s3://awares/grpo-adapter",
            "endpoint": seaweed.config.endpoint,
            "retry_budget_s": 20,
        },
        "data": {"train_samples": 64, "test_samples": 8, "image_cache": str(tmp_path / "images")},
        "engine": {"kv_cache_gib": 0.25, "dtype": "bfloat16"},
        "policy": {"lora_rank": 8, "dtype": "bfloat16"},
        "method": {"reward": "anls_reward:AnlsReward", "reward_settings": {"call_price": 0.5}},
        "evaluate": {"max_tokens": 8},
        "grpo": {
            "start": "sft",
            "keep_versions": STEPS + 1,
            "steps": STEPS,
            "groups_per_step": 4,
            "group_size": 8,
            "max_tokens": 8,
            "staleness_bound": 0,
            "micro_batch": 16,
            "learning_rate": 1e-2,
            # The user's reward runs in a process of its own.
            "reward_workers": 1,
            "reward_cpus": 0.0,
            "loss": "gspo",
            "minibatches": 2,
            "importance": "sequence_mask",
            "advantage_scale": "batch",
        },
        "sft": {"epochs": 1, "batch_size": 16, "micro_batch": 16, "learning_rate": 1e-2},
    }
    config = PlatformConfig.model_validate(settings)
    store = ObjectStore.from_config(config.store)
    ensure_mini(config.data, store)
    samples = read_samples(store, "awares-mini", "train")
    labelled = [
        replace(sample, label=Label.LR, question=sample.question * (1 if index % 4 == 0 else 200))
        for index, sample in enumerate(samples)
    ]
    short = [replace(sample, label=Label.LR) for sample in samples]
    write_samples(store, "awares-mini-curated", "train", short)
    with open_session(config) as opened:
        sft.run(opened)
        export_again_after_half_an_export(opened, store)
        write_samples(store, "awares-mini-curated", "train", labelled)
        run(opened)
        files = (Path(config.run.directory) / "grpo-adapter").rglob("metrics*.jsonl")
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        slopes = [row["canary/slope"] for row in rows if "canary/slope" in row]
        print(slopes)
        assert slopes and all(0.7 < slope < 1.3 for slope in slopes)
        # The first update of a step moves the policy far. In the second update, some ratios are
        # therefore outside GSPO's narrow range, and are clipped.
        clipped = [row["policy/clip_fraction"] for row in rows if "policy/clip_fraction" in row]
        print(clipped)
        assert len(clipped) == STEPS and 0 < max(clipped) <= 0.5
        unplayable = [row["data/unplayable"] for row in rows if "data/unplayable" in row]
        assert len(unplayable) == STEPS and 8 < unplayable[-1] <= 48
        assert store.get(f"{adapter_key('grpo-adapter', 'awares')}/manifest.json")
        subscriber = Subscriber(store, "grpo-adapter")
        newest = subscriber.head()
        assert newest is not None
        extra = subscriber.manifest(newest).extra
        assert extra.keys() == {"canary", "lineage", INPUTS}
        assert extra[INPUTS] == environment.inputs(config.method)
        begins_with_the_adapter_of_sft(opened, subscriber)
        asyncio.run(score_despite_a_kill(opened))
        asyncio.run(evaluate(opened))


def export_again_after_half_an_export(config: PlatformConfig, store: ObjectStore) -> None:
    """Delete the manifest of SFT's adapter, as if SFT had died before it exported the adapter."""
    key = f"{adapter_key('grpo-adapter', 'sft')}/manifest.json"
    exported = json.loads(store.get(key))
    store.delete(key)
    again = sft.run(config)
    assert again.resumed_from == again.steps > 0 and not again.metrics
    assert json.loads(store.get(key)) == exported


def begins_with_the_adapter_of_sft(config: PlatformConfig, subscriber: Subscriber) -> None:
    """Check that the first version is the adapter of SFT, and that GRPO exports an adapter.

    If GRPO started from SFT's merged weights, rounding to bfloat16 would lose a part of the
    adapter.
    """
    store, base, family = subscriber.store, config.policy.base, QWEN2_5_VL
    found = resolve_adapter(store, "grpo-adapter", "sft", base, family)
    assert found is not None
    adapter, scale = read_peft(found[1])
    first = subscriber.receive(1)
    assert first.manifest.adapter == scale and first.state.keys() == adapter.keys()
    assert all(torch.equal(first.state[name], adapter[name]) for name in adapter)
    trained = resolve_adapter(store, "grpo-adapter", "awares", base, family)
    assert trained is not None and trained[0] == found[0]
    assert rank_in(trained[1]) == 8
    meta = read_meta(store, "grpo-adapter", "awares")
    before = read_meta(store, "grpo-adapter", "sft")
    assert meta is not None and before is not None and meta["trained_from"] == before["digest"]


async def score_despite_a_kill(config: PlatformConfig) -> None:
    """Score ten groups with three reward workers, of which one is killed and one is stopped.

    The rewards must equal those of this process, bit for bit.
    """
    torch.set_num_threads(1)  # The encoder's last bits depend on the number of threads.
    method, workers = MethodConfig(), list[RemoteWorker]()
    scoring, stopped = Scoring(build_reward(method), config.grpo), list[Exception]()

    def spawn(index: int) -> RemoteWorker:
        workers.append(RemoteWorker(config.grpo, method, 10.0))
        return workers[-1]

    async def stop(error: Exception) -> None:
        stopped.append(error)

    async with RewardPool(config.grpo, spawn, stop) as score:
        for part, fault in (
            (range(10), signal.SIGKILL),
            (range(10, 20), signal.SIGSTOP),
            (range(20, 30), signal.SIGKILL),
        ):
            asked = [answered(number) for number in part]
            groups = await asyncio.gather(*(score(*one) for one in asked))
            assert groups == [scoring(*one) for one in asked] and not stopped
            process = await workers[-1]._handle.__ray_call__.remote(lambda _: os.getpid())
            os.kill(process, fault)
    assert len(workers) == 3


def answered(number: int) -> tuple[Prompt, GroupRollout]:
    """Return a prompt and its episodes. The answers differ between numbers and between episodes."""
    sample = Sample(f"s{number}", "ab" * 32, "digits?", f"{number} and 7", label=Label.LR)
    answers = [f"{'about ' * member}{number} and {member}" for member in range(8)]
    episodes = tuple(
        Episode(
            sample_id=sample.sample_id,
            image=sample.image,
            image_size=(112, 112),
            turns=(),
            answer=answer,
            stop=StopReason.ANSWER,
            visual_tokens=4,
            rtr_token=0.25,
            rtr_pixel=0.25,
        )
        for answer in answers
    )
    return Prompt(number, 0, sample), GroupRollout(episodes, 0.0, 1.0)


async def evaluate(config: PlatformConfig) -> None:
    """Evaluate the policy, and then damaged adapters, which the evaluation must refuse."""
    # So large a bound leaves only one check that can refuse a loaded adapter: the check of the
    # change since version 0.
    engine = config.engine.model_copy(update={"canary_bound": 5.0})
    store = ObjectStore.from_config(config.store)
    samples = read_samples(store, "awares-mini", "test")
    evaluator = Evaluator(config.model_copy(update={"engine": engine}))
    await evaluator.start()
    try:
        for name in ("sft", "awares"):
            report = await evaluator.load(name, samples)
            assert evaluator._engine._adapters is not None
            assert report.canary_slope == pytest.approx(1, abs=0.3), name
        played = await evaluator.play("awares", samples)
        assert len(played) == len(samples) and all(one.episode is not None for one in played)
        await refuse_incomplete_exports(evaluator, store, samples)
        with pytest.raises(CanaryMismatch, match=r"the engine plays -?\d"):
            await load_zeros(evaluator, samples)
        await evaluator.load("base", samples)
        assert evaluator._engine._adapters is None
    finally:
        await evaluator.stop()


async def refuse_incomplete_exports(
    evaluator: Evaluator, store: ObjectStore, samples: list[Sample]
) -> None:
    """Check that the evaluation refuses an adapter of zeros, and an adapter without MLP layers.

    At the end, the store has the exported adapter again.
    """
    key = adapter_key("grpo-adapter", "awares")
    exported = {info.key: store.get(info.key) for info in store.list(f"{key}/")}
    tensors = load(exported[f"{key}/{WEIGHTS_FILE}"])
    zeros = {name: tensor * 0 for name, tensor in tensors.items()}
    half = {name: tensor for name, tensor in tensors.items() if "self_attn" in name}
    for faulty in (zeros, half):
        data = save(faulty)
        files = json.loads(exported[f"{key}/manifest.json"])
        files["files"][WEIGHTS_FILE] = blake3(data).hexdigest()
        files["meta"]["digest"] = combined(files["files"])
        store.put(f"{key}/{WEIGHTS_FILE}", data)
        store.put(f"{key}/manifest.json", json.dumps(files).encode())
        with pytest.raises(PolicyError, match=r"the adapter in .* does not change model\."):
            await evaluator.load("awares", samples)
    for name, data in exported.items():
        store.put(name, data)


async def load_zeros(evaluator: Evaluator, samples: list[Sample]) -> None:
    """Load an adapter of zeros into the engine, instead of the exported adapter."""
    publish = evaluator._loader._publish

    def damaged(exported: Exported, extra: dict[str, Any], above: int) -> int:
        assert exported.adapter is not None
        tensors, scale = read_peft(exported.adapter)
        with tempfile.TemporaryDirectory() as directory:
            zeros = {name: tensor * 0 for name, tensor in tensors.items()}
            write_peft(zeros, scale, Path(directory))
            return publish(replace(exported, adapter=Path(directory)), extra, above)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator._loader, "_publish", damaged)
        await evaluator.load("awares", samples)
