from collections.abc import Callable
from dataclasses import replace

import pytest

from awares.episode import Episode, StopReason
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.engine.usage import UsageMeter
from awares_platform.grpo.engine_metrics import EngineMetrics
from awares_platform.grpo.group import Group, Member, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.step_metrics import StepMetrics, batch_metrics


def load(
    version: int, load_s: float, pause_s: float, canary: float, size: int = 0, detours: int = 0
) -> Loaded:
    staged = Prefetched(
        hops=1, size=size, detours=detours, fetch_s=0.1, decode_s=0.02, verify_s=0.03
    )
    return Loaded(LoadReport(version, staged, 0.01, pause_s, canary), load_s)


def test_the_engines_figures_are_those_of_the_time_between_two_reports() -> None:
    clocks = [0.0, 0.0]
    meters = [UsageMeter(lambda: clocks[0]), UsageMeter(lambda: clocks[1])]
    engines = EngineMetrics()
    for meter in meters:
        engines.used(meter.read())
    meters[0].began(prompted=10)
    clocks[0] = 2.0
    meters[0].began(prompted=6)
    early = meters[0].read()
    clocks[0] = 3.0
    meters[0].ended(sampled=4)
    meters[0].ended(sampled=8)
    clocks[0] = 4.0
    engines.used(meters[0].read())
    engines.used(early)  # This older report arrives late.
    clocks[1] = 2.0  # The second engine does nothing for 2 s.
    engines.used(meters[1].read())
    assert engines.step() == {
        "engine/busy": (3 / 4 + 0) / 2,
        "engine/in_flight": ((3 + 1) / 4 + 0) / 2,
        "engine/tokens_per_s": 12 / 4,
        "engine/prompt_tokens_per_s": 16 / 4,
    }
    assert engines.step() == {}
    clocks[0] = 6.0
    engines.used(meters[0].read())
    assert engines.step()["engine/busy"] == 0.0


def test_a_steps_metrics(
    call_episode: Episode, make_episode: Callable[..., Episode], samples: list[Sample]
) -> None:
    failed = replace(make_episode(), turns=(), answer=None, stop=StopReason.ERROR, rtr_token=0.0)
    members = (
        Member(call_episode, RewardValue(9.74, {"answer": 10.0, "cost": 0.26}), True, 1.0),
        Member(make_episode(4), RewardValue(3.0, {"answer": 5.0, "cost": 2.0}), False, -1.0),
        Member(failed, RewardValue(0.0, {}), False, None),
    )
    group = Group(Prompt(0, 0, samples[0]), members, Outcome.READY, seconds=2.0)
    metrics = StepMetrics()
    for item in (
        load(3, 0.5, 0.03, 0.001, size=100),
        load(4, 0.7, 0.05, 0.003, size=300, detours=2),
    ):
        metrics.loaded(0, item)
    metrics.missed(Missed(5, "damaged"))
    metrics.finished(group)
    meter = UsageMeter(iter((0.0, 0.0, 1.0, 2.0)).__next__)
    metrics.used(meter.read())
    meter.began(prompted=3)
    metrics.used(meter.read())
    batch = StepBatch(0, (group,), Position(1))
    described = batch_metrics(batch, 5, Lineage())
    record = metrics.step(batch, 5, described, {"policy/kl": 0.01})
    expected = {
        "reward/mean": 6.37,
        "reward/answer": 7.5,
        "reward/cost": 1.13,
        "accuracy/train": 0.5,
        "rtr/token": 0.625,
        "call/rate": 0.5,
        "episodes/error": 1 / 3,
        "tokens/sampled": 5,
        "tokens/visual": 16 + 4 + 4,
        "staleness/mean": (2 + 2 + 1 + 1 + 0) / 5,
        "staleness/max": 2,
        "time/load": 0.6,
        "time/pause": 0.04,
        "time/fetch": 0.1,
        "time/decode": 0.02,
        "time/verify": 0.03,
        "time/apply": 0.01,
        "canary/dlogp": 0.003,
        "weights/loaded_bytes": 200,
        "weights/detours": 2,
        "weights/missed": 1,
        "time/rollout": 2.0,
        "engine/busy": 0.5,
        "groups/ready": 1,
        "progress/episodes": 3,
        "policy/kl": 0.01,
    }
    assert {key: record[key] for key in expected} == pytest.approx(expected)


def test_loads_are_reported_once(make_group: Callable[..., Group], samples: list[Sample]) -> None:
    metrics = StepMetrics()
    metrics.loaded(0, load(1, 0.5, 0.03, 0.001))
    metrics.missed(Missed(2, "damaged"))
    batch = StepBatch(0, (make_group(Prompt(0, 0, samples[0])),), Position(1))
    first, second = metrics.step(batch, 1, {}, {}), metrics.step(batch, 2, {}, {})
    assert "time/load" in first and first["weights/missed"] == 1
    assert "time/load" not in second and second["weights/missed"] == 0


def test_the_lag_is_that_of_the_living_actor_furthest_behind(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    metrics = StepMetrics()
    batch = StepBatch(0, (make_group(Prompt(0, 0, samples[0])),), Position(1))
    assert "weights/lag" not in metrics.step(batch, 0, {}, {})
    for actor, version in ((0, 5), (1, 2), (1, 3)):
        metrics.loaded(actor, load(version, 0.5, 0.03, 0.001))
    assert metrics.step(batch, 5, {}, {})["weights/lag"] == 2
    metrics.restarted(1)
    assert metrics.step(batch, 6, {}, {})["weights/lag"] == 1
