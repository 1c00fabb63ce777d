"""Tests engines of two tensor-parallel processes on the CPU, with weights from SeaweedFS.

An engine of one process, or transformers, gives the expected values.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor

import awares.mini
from awares.chat import ChatFormat
from awares.generate import Generation, Sampling
from awares_platform.engine.canary import to_extra
from awares_platform.engine.load import LoadReport
from awares_platform.store import ObjectStore
from awares_platform.weights import Identity, Manifest, Publisher, Subscriber
from awares_platform.weights.adapter import DOWN, UP, fold
from tests.integration.counting import CountingStore
from tests.integration.random_policy import CONFIG, RandomPolicy, moved
from tests.integration.running_engine import Running, started, two_canaries
from tests.integration.trained_adapter import RANK, TrainedAdapter

pytestmark = [pytest.mark.integration, pytest.mark.slow]
PARALLEL = CONFIG.model_copy(update={"tensor_parallel": 2, "load_timeout_s": 60.0})
POLICY = Path(awares.mini.__file__).parent / "policy_weights"
QUESTIONS = 8


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> RandomPolicy:
    return RandomPolicy.build(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def pair(policy: RandomPolicy) -> Iterator[tuple[Running, Running]]:
    """Start an engine of one process, and an engine of two processes."""
    with ExitStack() as stack:
        one, two = (
            Running(
                *stack.enter_context(started(policy.path, config, policy.chat)),
                policy.chat,
                policy.canary,
            )
            for config in (CONFIG, PARALLEL)
        )
        yield one, two


def load(
    pair: tuple[Running, Running], subscribers: tuple[Subscriber, Subscriber], version: int
) -> LoadReport:
    """Load a version into both engines, and check both with the canary.

    Return the report of the engine with two processes.
    """
    reports = [
        running.run(running.engine.load_version(subscriber, version, running.canary))
        for running, subscriber in zip(pair, subscribers, strict=True)
    ]
    print(version, reports)
    assert all((report.canary_dlogp or 0) < CONFIG.canary_bound for report in reports)
    return reports[1]


def answers(running: Running, policy: RandomPolicy) -> list[Generation]:
    greedy = Sampling(max_tokens=24)
    return [running.run(running.engine(policy.ask(index, greedy))) for index in range(QUESTIONS)]


def assert_same(pair: tuple[Running, Running], policy: RandomPolicy) -> None:
    """Check that both engines return the same tokens, and the same logprobs except for rounding.

    Rounding can make the tokens of two answers differ. The check then ignores the rest of these
    answers, but it fails if 30 % of all tokens or more are ignored.
    """
    compared = sampled = 0
    for one, two in zip(*(answers(running, policy) for running in pair), strict=True):
        assert {*one.versions} == {*two.versions}
        pairs = enumerate(zip(one.token_ids, two.token_ids, strict=False))
        apart = next((index for index, (left, right) in pairs if left != right), 24)
        # Where the tokens first differ, both must still have almost equal logprobs.
        until = apart + 1
        assert two.logprobs[:until] == pytest.approx(one.logprobs[:until], abs=1e-3)
        compared, sampled = compared + min(until, len(one.token_ids)), sampled + len(one.token_ids)
    print(compared, sampled)
    assert compared > 0.7 * sampled


def assert_shared(store: CountingStore, manifest: Manifest, report: LoadReport) -> None:
    """Check that two processes together read a version once, and that each reads about half."""
    read = store.read()
    store.log.unlink()
    print(read, manifest.size)
    assert len(read) == 2
    assert read.total() == manifest.size == report.prefetched.size
    # A process reads only whole pieces of a delta, so it may read more than half. The largest piece
    # has a quarter of the bytes.
    assert max(read.values()) < 0.7 * manifest.size


def test_two_processes_read_a_version_once_and_play_what_one_process_plays(
    pair: tuple[Running, Running], policy: RandomPolicy, seaweed: ObjectStore, tmp_path: Path
) -> None:
    counted = CountingStore(seaweed.config, tmp_path / "reads")
    subscribers = Subscriber(seaweed, "whole"), Subscriber(counted, "whole")
    publisher = Publisher(seaweed, "whole")
    assert_same(pair, policy)
    before = answers(pair[1], policy)
    first, second = moved(policy.model, 1), moved(policy.model, 2)
    state = first.state_dict()
    other = {name: tensor for name, tensor in second.state_dict().items() if ".layers.0." in name}
    second.load_state_dict(state | other)
    for model in (first, second):
        version = policy.publish(publisher, pair[1].engine, model.state_dict(), model)
        report = load(pair, subscribers, version)
        manifest = subscribers[0].manifest(version)
        assert (manifest.base is None) == (model is first)
        assert_shared(counted, manifest, report)
        assert_same(pair, policy)
    assert [one.token_ids for one in answers(pair[1], policy)] != [one.token_ids for one in before]


def test_an_adapter_is_folded_alike(
    pair: tuple[Running, Running], policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher = Publisher(seaweed, "folded", identity=Identity(adapter=0.5))
    model = moved(policy.model, seed=0)
    model.load_state_dict(policy.model.state_dict())
    adapter: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "down_proj")) and "visual" not in name:
            weight = policy.model.get_parameter(f"{name}.weight").data
            above, below = weight.shape
            down, up = torch.randn(2, below) * 0.3, torch.randn(above, 2) * 0.3
            adapter |= {f"{name}{DOWN}": down, f"{name}{UP}": up}
            module.weight.data = fold(weight, down, up, 0.5)
    version = policy.publish(publisher, pair[1].engine, adapter, model)
    load(pair, (Subscriber(seaweed, "folded"), Subscriber(seaweed, "folded")), version)
    assert_same(pair, policy)


def test_two_processes_play_a_whole_adapter_in_bfloat16(seaweed: ObjectStore) -> None:
    processor = AutoProcessor.from_pretrained(POLICY)
    chat = ChatFormat(processor.tokenizer)
    canary, batch = two_canaries(chat)
    trained = TrainedAdapter.attach(POLICY, processor, canary, torch.bfloat16)
    start = trained.logprobs()
    publisher = Publisher(seaweed, "played", identity=Identity(adapter=trained.scale))
    config = PARALLEL.model_copy(update={"dtype": "bfloat16"})
    with started(POLICY, config, chat, RANK) as (runner, engine):
        for _ in range(20):
            trained.step(batch, 1e-4)
        extra = {"canary": to_extra(canary, trained.logprobs(), start)}
        publisher.publish(1, trained.published(), extra)
        report = runner.run(engine.load_version(Subscriber(seaweed, "played"), 1, canary))
    print(report)
    assert report.canary_slope == pytest.approx(1, abs=0.1)


def test_no_process_outlives_the_process_that_started_the_engine(policy: RandomPolicy) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.parallel_engine", str(policy.path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    try:
        assert any("ready" in line for line in parent.stdout)
        family = psutil.Process(parent.pid).children(recursive=True)
        commands = {process.pid: process.cmdline() for process in family}
    finally:
        parent.kill()
        parent.wait()
    # The engine process and two workers are among the processes.
    assert len(family) >= 3
    _, alive = psutil.wait_procs(family, timeout=20)
    left = {process.pid: commands[process.pid] for process in alive}
    for process in alive:
        process.kill()
    assert not left
