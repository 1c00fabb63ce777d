from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from awares_platform.config import PlatformConfig
from awares_platform.config.guards import GuardsConfig
from awares_platform.grpo.guards import Guards, GuardTripped

GIB = 2**30


def guards(
    free: int = 100 * GIB, asks: bool = True, settings: dict[str, str] | None = None
) -> Guards:
    checked = GuardsConfig.model_validate({"window": 2, **(settings or {})})
    return Guards(checked, Path("runs"), asks, lambda _: free)


def said(watch: Guards, *steps: dict[str, float]) -> list[list[str]]:
    rows = enumerate(steps)
    return [[alarm.sentence for alarm in watch.check(step, metrics)] for step, metrics in rows]


@pytest.mark.parametrize(
    ("metrics", "key", "words"),
    [
        ({"policy/kl": 3.0}, "kl", "above grpo.guards.kl_above=2"),
        ({"call/rate": 0.0}, "call_rate", "below grpo.guards.call_rate_below=0.005"),
        ({"call/rate": 1.0}, "call_rate", "above grpo.guards.call_rate_above=0.995"),
        ({"call/malformed": 0.5}, "malformed", "above grpo.guards.malformed_above=0.2"),
        ({"groups/uniform_share": 1.0}, "uniform", "above grpo.guards.uniform_above=0.9"),
        ({"policy/surprise": 1e-5}, "entropy", "below grpo.guards.entropy_below=0.001"),
        ({"policy/kl": float("nan")}, "kl", "is nan, above grpo.guards.kl_above=2"),
    ],
)
def test_each_guard_is_off_or_warns_or_stops(
    metrics: dict[str, float], key: str, words: str
) -> None:
    off, stop = {key: "off"}, {key: "stop"}
    assert said(guards(settings=off), metrics, metrics) == [[], []]
    first, [warning] = said(guards(), metrics, metrics)
    assert first == []
    assert warning.startswith(f"step 1: the mean of {next(iter(metrics))} over 2 steps is ")
    assert words in warning
    with pytest.raises(
        GuardTripped, match=f"stopped after step 1: .*grpo.guards.{key}=.warn. only warns"
    ):
        said(guards(settings=stop), metrics, metrics)


def test_a_fall_of_the_held_out_accuracy_is_seen_at_once() -> None:
    [[warning]] = said(guards(), {"validation/decline": 0.06})
    assert warning == (
        "step 0: the fall of the held-out accuracy at a higher reward is 0.06, above "
        "grpo.guards.held_out_above=0.05: the policy learns the reward and not the task; change "
        "method.reward"
    )
    assert said(guards(), {"validation/decline": 0.04}) == [[]]


@pytest.mark.parametrize("key", ["kl", "call_rate", "malformed", "entropy", "held_out"])
def test_a_guard_of_the_policy_may_restore_the_best_version(key: str) -> None:
    watch = guards(settings={key: "restore-best"})
    wrong = {
        "policy/kl": 3.0,
        "call/rate": 0.0,
        "call/malformed": 0.5,
        "policy/surprise": 0.0,
        "validation/decline": 0.5,
    }
    alarms = [alarm for _ in range(2) for alarm in watch.check(7, wrong)]
    assert sorted(alarm.restore for alarm in alarms) == [False] * 4 + [True]
    # A guard does not repeat its alarm. After a reset, only values of the restored policy count.
    assert [*watch.check(8, wrong)] == []
    watch.reset()
    assert {alarm.sentence[:6] for _ in range(2) for alarm in watch.check(9, wrong)} == {"step 9"}


@pytest.mark.parametrize("key", ["uniform", "disk_free_gib"])
def test_the_best_version_does_not_mend_the_data_or_the_disk(key: str) -> None:
    with pytest.raises(ValidationError, match=f"{key}\n.*Input should be 'off', 'warn' or 'stop'"):
        guards(settings={key: "restore-best"})


@pytest.mark.parametrize("off", [{"grpo": {"validation": {"every": 0}}}, {"data": {"held_out": 0}}])
def test_a_guard_restores_only_in_a_run_that_validates(off: dict[str, dict[str, object]]) -> None:
    grpo = {"guards": {"kl": "restore-best"}, **off.get("grpo", {})}
    PlatformConfig.model_validate({"grpo": {"guards": {"kl": "restore-best"}}})
    with pytest.raises(ValidationError, match='grpo.guards.kl="restore-best" needs validated'):
        PlatformConfig.model_validate({**off, "grpo": grpo})


def test_the_mean_counts_and_a_guard_speaks_once_until_its_metric_returns() -> None:
    values = (9.0, 0.0, 5.0, 5.0, 0.0, 0.0, 5.0)
    found = said(guards(), *({"policy/kl": value} for value in values))
    # The means over two steps are 4.5, 2.5, 5, 2.5, 0 and 2.5, and the bound is 2. The guard warns
    # again only after the mean has fallen below the bound.
    assert [len(one) for one in found] == [0, 1, 0, 0, 0, 0, 1]


def test_a_full_disk_is_seen_at_the_first_step() -> None:
    [[warning]] = said(guards(free=GIB), {"policy/kl": 0.0})
    assert "the free space of runs in GiB is 1, below grpo.guards.disk_free_gib_below=2" in warning


def test_a_method_with_one_turn_has_no_guard_of_its_call_rate() -> None:
    quiet = {"call/rate": 0.0}
    assert said(guards(asks=False), quiet, quiet) == [[], []]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_a_run_within_the_bounds_is_quiet(rates: list[float]) -> None:
    inside = [{"call/rate": 0.01 + 0.98 * rate, "policy/kl": rate} for rate in rates]
    assert not any(said(guards(), *inside))


def test_bounds_that_no_value_meets_are_refused() -> None:
    with pytest.raises(ValidationError, match="call_rate_below=0.6 must be less than"):
        GuardsConfig(call_rate_below=0.6, call_rate_above=0.5)
