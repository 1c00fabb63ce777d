"""Tests that peft and vLLM load the PEFT directory of an exported LoRA policy.

The policy is the bundled one, and the learner and peft compute in float32.
"""

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import peft
import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

import awares.mini
from awares.chat import ChatFormat
from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.config.engine import EngineConfig
from awares_platform.config.method import MethodConfig
from awares_platform.engine.canary import Logprobs, learner_logprobs, tails
from awares_platform.engine.canary_change import change, check
from awares_platform.engine.engine import Engine, EngineError
from awares_platform.engine.exported import Playable, playable
from awares_platform.store import ObjectStore
from awares_platform.training import inputs, lora
from awares_platform.training.export import adapter_key, export_adapter, export_policy
from awares_platform.training.identity import content_digest
from awares_platform.training.source import resolve, resolve_adapter
from awares_platform.weights import Identity, Publisher, Subscriber
from awares_platform.weights.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.integration.running_engine import LIMITS, two_canaries
from tests.integration.trained_adapter import TrainedAdapter

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Dtype = Literal["bfloat16", "float32"]
POLICY = Path(awares.mini.__file__).parent / "policy_weights"


@pytest.fixture(scope="module")
def trained() -> TrainedAdapter:
    processor = AutoProcessor.from_pretrained(POLICY)
    chat = ChatFormat(processor.tokenizer)
    canary, batch = two_canaries(chat)
    trained = TrainedAdapter.attach(POLICY, processor, canary, torch.float32)
    for _ in range(10):
        trained.step(batch, 1e-4)
    return trained


@pytest.fixture(scope="module")
def directory(
    trained: TrainedAdapter, seaweed: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Export the trained adapter, and return a directory with the downloaded files."""
    named = (seaweed, "lora", "awares", QWEN2_5_VL, MethodConfig(), {"step": 10})
    key = export_adapter(trained.published(), trained.scale, POLICY, "base", *named)
    assert key == adapter_key("lora", "awares") == "runs/lora/policies/awares-adapter"
    manifest = json.loads(seaweed.get(f"{key}/manifest.json"))
    assert manifest["meta"]["trained_from"] == content_digest(POLICY)
    assert manifest["files"].keys() == {CONFIG_FILE, WEIGHTS_FILE, inputs.FILE}
    directory = tmp_path_factory.mktemp("adapter")
    for name in manifest["files"]:
        (directory / name).write_bytes(seaweed.get(f"{key}/{name}"))
    return directory


def worst(found: Logprobs, wanted: Logprobs) -> float:
    return max(
        abs(mine - theirs)
        for rows in zip(found, wanted, strict=True)
        for mine, theirs in zip(*rows, strict=True)
    )


def test_peft_loads_the_directory(trained: TrainedAdapter, directory: Path) -> None:
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY, dtype=torch.float32).eval()
    before = learner_logprobs(base, trained.processor, trained.canary)
    model: Any = peft.PeftModel.from_pretrained(base, directory)
    found = learner_logprobs(model, trained.processor, trained.canary)
    assert worst(before, trained.logprobs()) > 0.1
    assert worst(found, trained.logprobs()) < 1e-4
    assert not [name for name, _ in model.named_parameters() if "visual" in name and "lora" in name]


def start_logprobs(trained: TrainedAdapter) -> Logprobs:
    """Return the logprobs of the canary prompts that the learner computes without the adapter."""
    with lora.adapters_off(trained.model):
        return learner_logprobs(trained.model, trained.processor, trained.canary)


async def played_logprobs(
    trained: TrainedAdapter,
    played: Playable,
    dtype: Dtype,
    load: Subscriber | None = None,
) -> Logprobs:
    """Start an engine with the files `played`. Return its logprobs of the canary prompts.

    If `load` is given, the engine first loads version 1 from this subscriber.
    """
    engine = await Engine.start(
        played.policy,
        EngineConfig(dtype=dtype, kv_cache_gib=0.25),
        ChatFormat(trained.processor.tokenizer),
        family=QWEN2_5_VL,
        limits=LIMITS,
        adapter=played.adapter,
        base=played.base,
    )
    async with engine:
        if load is not None:
            await engine.load_version(load, 1)
        rows = [engine.score(ids, images) for ids, images in trained.canary.prompts]
        return tails(await asyncio.gather(*rows), trained.canary)


def test_an_engine_in_bfloat16_starts_with_the_adapter(
    trained: TrainedAdapter, directory: Path, seaweed: ObjectStore
) -> None:
    """vLLM loads the exported adapter, and keeps it separate from the base policy's weights.

    The adapter must change the canary's logprobs as much in the engine as in the learner.
    """
    files = playable(seaweed, "lora", "awares", "mini", QWEN2_5_VL, "bfloat16", MethodConfig())
    assert files.policy == POLICY and files.adapter is not None
    measured = [
        asyncio.run(played_logprobs(trained, played, "bfloat16"))
        for played in (files, Playable(POLICY, None, POLICY))
    ]
    found = change(trained.logprobs(), start_logprobs(trained), *measured)
    print(found)
    assert found.is_seen
    check(found, version=0)


def test_an_engine_in_float32_plays_an_update_that_bfloat16_loses(
    trained: TrainedAdapter, seaweed: ObjectStore
) -> None:
    """Export a small update as an adapter, and also merged into bfloat16, which loses most of it.

    Only transformers computes the logprobs of version 0, because the engine's are almost the same.
    """
    small = TrainedAdapter.attach(POLICY, trained.processor, trained.canary, torch.float32)
    small.step(trained.canary, 1e-5)
    named = (seaweed, "small", "awares", QWEN2_5_VL, MethodConfig())
    export_policy(small.merged(), POLICY, *named)
    export_adapter(small.published(), small.scale, POLICY, "base", *named)
    start, learned = start_logprobs(small), small.logprobs()
    rounded = resolve(seaweed, "small", "awares", "mini", QWEN2_5_VL)
    merged = Qwen2_5_VLForConditionalGeneration.from_pretrained(rounded, dtype=torch.float32)
    lost = learner_logprobs(merged.eval(), small.processor, small.canary)
    assert change(learned, start, lost, start).slope < 0.5
    files = playable(seaweed, "small", "awares", "mini", QWEN2_5_VL, "float32", MethodConfig())
    again = playable(seaweed, "small", "awares", "mini", QWEN2_5_VL, "float32", MethodConfig())
    assert files == again and files.adapter is None
    found = change(learned, start, asyncio.run(played_logprobs(small, files, "float32")), start)
    print(found)
    assert found.slope == pytest.approx(1, abs=0.02)
    plays_a_later_version(small, files, seaweed, start)


def plays_a_later_version(
    small: TrainedAdapter, files: Playable, store: ObjectStore, start: Logprobs
) -> None:
    """Check that the adapter of version 1 replaces the first adapter, and is not added to it."""
    small.step(small.canary, 1e-5)
    identity = Identity(adapter=small.scale)
    Publisher(store, "later", identity=identity).publish(1, small.published())
    played = played_logprobs(small, files, "float32", Subscriber(store, "later"))
    found = change(small.logprobs(), start, asyncio.run(played), start)
    print(found)
    assert found.slope == pytest.approx(1, abs=0.02)


def test_an_engine_that_would_ignore_an_adapter_does_not_start(
    trained: TrainedAdapter, directory: Path
) -> None:
    with pytest.raises(EngineError, match="in float32 plays no adapter beside its weights"):
        asyncio.run(played_logprobs(trained, Playable(POLICY, directory, POLICY), "float32"))


def test_the_adapter_of_another_export_is_not_played(
    trained: TrainedAdapter, directory: Path, seaweed: ObjectStore
) -> None:
    """After an export of whole weights, `resolve_adapter` does not find an earlier adapter.

    An adapter of another base policy raises PolicyError.
    """
    state = trained.merged()
    named = (seaweed, "lora", "awares", QWEN2_5_VL, MethodConfig())
    export_policy(state, POLICY, *named)
    assert resolve_adapter(seaweed, "lora", "awares", "mini", QWEN2_5_VL) is None
    key = export_adapter(trained.published(), trained.scale, POLICY, "base", *named)
    manifest = json.loads(seaweed.get(f"{key}/manifest.json"))
    manifest["meta"]["trained_from"] = "0" * 64
    seaweed.put(f"{key}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(PolicyError, match="is an adapter of another policy base"):
        playable(seaweed, "lora", "awares", "mini", QWEN2_5_VL, "bfloat16", MethodConfig())
