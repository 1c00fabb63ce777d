"""Tests an evaluation of all policies on one real engine, and all output of the evaluation."""

import json
import signal
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import ensure_mini, read_samples
from awares_platform.evaluate.job import run
from awares_platform.runtime import session as sessions
from awares_platform.store import ObjectStore
from awares_platform.training.export import export_policy
from awares_platform.training.source import resolve
from awares_platform.weights import Subscriber
from tests.integration.damaged_image import damage_image
from tests.processes import descendants, gone

pytestmark = [pytest.mark.integration, pytest.mark.slow]
QUESTIONS, HANG_S = 40, 15.0


def strike_twice(store: ObjectStore, struck: list[str]) -> None:
    """Kill the engine at the first version of the weights, and stop the evaluator at the next one.

    Append the name of each process that has ended to `struck`.
    """
    subscriber, seen = Subscriber(store, "evaluate-test/evaluate"), 0
    for name, fault in (("VLLM::EngineCore", signal.SIGKILL), ("ray::Evaluator", signal.SIGSTOP)):
        while (head := subscriber.head() or 0) <= seen:
            time.sleep(0.02)
        seen = head
        [victim] = descendants(lambda command, name=name: command.startswith(name))
        victim.send_signal(fault)
        assert not gone([victim], 1.25 * HANG_S + 60), f"{name} still runs"
        struck.append(name)


def test_every_policy_on_one_engine(seaweed: ObjectStore, tmp_path: Path) -> None:
    """Evaluate every policy, while the engine is killed and later the evaluator is stopped.

    The policies "low" and "awares" have the same weights, so most of their first turns must be the
    same. The policy "sft" has other weights.
    """
    settings = {
        "run": {
            "name": "evaluate-test",
            "directory": str(tmp_path / "runs"),
            "hang_timeout_s": HANG_S,
        },
        "store": {
            "url": "s3://awares/evaluate-test",
            "endpoint": seaweed.config.endpoint,
            "retry_budget_s": 10,
        },
        "data": {
            "train_samples": 1,
            "test_samples": QUESTIONS,
            "image_cache": str(tmp_path / "images"),
        },
        "engine": {"kv_cache_gib": 0.25},
        "evaluate": {"latency_questions": 6, "max_tokens": 8, "in_flight": 16},
        "grpo": {"start": "base"},
    }
    config = PlatformConfig.model_validate(settings)
    store = ObjectStore.from_config(config.store)
    ensure_mini(config.data, store)
    samples = read_samples(store, "awares-mini", "test")
    damage_image(store, "awares-mini", "test", samples[-1].image)
    base = resolve(store, config.run.name, "base", config.policy.base, QWEN2_5_VL)
    state = load_file(base / "model.safetensors")
    other = {
        name: tensor * 1.5 if name.endswith("mlp.down_proj.weight") else tensor
        for name, tensor in state.items()
    }
    export_policy(state, base, store, config.run.name, "awares", QWEN2_5_VL, config.method)
    export_policy(other, base, store, config.run.name, "sft", QWEN2_5_VL, config.method)
    with sessions.session(config) as session:
        struck: list[str] = []
        striking = threading.Thread(target=strike_twice, args=(store, struck), daemon=True)
        striking.start()
        result = run(session)
    assert struck == ["VLLM::EngineCore", "ray::Evaluator"]

    policies = result.results["policies"]
    assert set(policies) == {"full", "low", "threshold", "escalate", "sft", "awares"}
    assert result.results["questions"] == QUESTIONS - 1 and result.results["unusable"] == 1
    assert all(row["n"] == QUESTIONS - 1 and row["errors"] == 0 for row in policies.values())
    assert policies["full"]["rtr_token"] == 1.0 and policies["low"]["rtr_token"] == 0.25
    assert policies["threshold"]["rtr_token"] <= policies["awares"]["rtr_token"]
    assert all(0 < row["latency_p50_s"] <= row["latency_p95_s"] for row in policies.values())
    directory = Path(config.run.directory) / "evaluate-test" / "evaluate"
    episodes = {
        name: pq.read_table(directory / f"episodes-{name}.parquet").to_pylist() for name in policies
    }
    assert [row["sample_id"] for row in episodes["awares"]] == [
        sample.sample_id for sample in samples[:-1]
    ]
    direct = [
        (low["turns"][0], awares["turns"][0])
        for low, awares in zip(episodes["low"], episodes["awares"], strict=True)
    ]
    assert sum(low == awares for low, awares in direct) >= 0.9 * len(direct), (
        "greedy answers may differ only where two tokens have equal logprobs in bfloat16"
    )
    assert (
        sum(
            one["turns"][0] != two["turns"][0]
            for one, two in zip(episodes["sft"], episodes["low"], strict=True)
        )
        > 0
    )
    assert json.loads((directory / "results.json").read_text()) == json.loads(
        json.dumps(result.results)
    )
    assert (
        store.get("runs/evaluate-test/evaluate/results.json")
        == (directory / "results.json").read_bytes()
    )
    recipe = json.loads(store.get("runs/evaluate-test/evaluate/recipe.json"))
    assert recipe["evaluate.max_tokens"] == 8 and len(recipe["policy awares"]) == 64
    assert (directory / "table.md").read_text().startswith(result.table)
    assert not list(store.list("runs/evaluate-test/evaluate/weights/"))
