"""Tests how many rollout actors a run wants, by the load of the actors and the learner's waits."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.group import Position
from awares_platform.grpo.sizing import WINDOW_S, Resize, Sizing, least_actors
from awares_platform.method.play import Played
from tests.unit.awares_platform.grpo.fake_actor import FakeActor
from tests.unit.awares_platform.grpo.stage import Stage, play, until


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def decided(
    wanted: int,
    load: float,
    waits: float,
    running: int | None = None,
    least: int = 1,
    most: int = 9,
) -> int:
    """Return how many actors the run wants if `load` actors were busy on average."""
    clock = Clock()
    sizing = Sizing(least, most, clock)
    for second in range(int(WINDOW_S)):
        clock.now += 1
        busy = round(load * (second + 1)) - round(load * second)
        sizing.observe(busy, wanted if running is None else running)
    found = sizing.decide(wanted, waits * WINDOW_S)
    return found.actors if found else wanted


@pytest.mark.parametrize(
    ("wanted", "load", "waits", "found"),
    [
        (4, 2.0, 0.0, 3),  # Three actors would have work for 67 % of the time.
        (4, 2.4, 0.0, 3),
        (4, 2.8, 0.0, 4),  # Three actors would have work for 93 % of the time.
        (8, 0.8, 0.0, 1),
        (1, 0.0, 0.0, 1),
        (4, 2.0, 0.5, 4),  # The learner waits, so no actor is released.
        (3, 2.9, 0.5, 6),  # The learner waits half of the time, so it needs twice the actors.
        (3, 2.9, 0.05, 3),
        (3, 2.0, 0.5, 3),  # The actors are partly idle, so more actors do not help.
        (4, 4.0, 1.0, 9),
    ],
)
def test_actors_are_released_or_added_only_if_that_helps(
    wanted: int, load: float, waits: float, found: int
) -> None:
    assert decided(wanted, load, waits) == found


def test_actors_without_a_node_count_as_wanted() -> None:
    assert decided(4, 0.7, 0.0, running=1) == 1
    assert decided(4, 1.0, 0.5, running=1) == 4


@given(need=st.floats(0.01, 70), wanted=st.integers(1, 64))
def test_a_steady_load_leads_to_one_number_of_actors(need: float, wanted: int) -> None:
    """Check that the number of actors is stable and suitable after two decisions.

    At the learner's full speed, the rollouts keep `need` actors busy.
    """

    def after(actors: int) -> int:
        return decided(actors, min(need, actors), max(0.0, 1 - actors / need), most=64)

    settled = after(after(wanted))
    assert after(settled) == settled
    assert settled == 64 or need * 0.9 <= settled <= max(need / 0.8 + 1, wanted)


def test_a_window_must_pass_before_each_change() -> None:
    clock = Clock()
    sizing = Sizing(1, 4, clock)
    assert sizing.decide(4, 0.0) is None
    clock.now = WINDOW_S - 1
    sizing.observe(0, 4)
    assert sizing.decide(4, 6.0) is None
    clock.now = WINDOW_S
    reason = "over 300 s, 0.0 of 4.0 actors had work, and the learner waited 4%"
    assert sizing.decide(4, 6.0) == Resize(1, reason)
    clock.now += WINDOW_S - 1
    sizing.observe(0, 3)
    assert sizing.decide(3, 0.0) is None
    sizing.restart()
    clock.now += WINDOW_S
    assert sizing.decide(3, 0.0) is None  # No actor ran in this window.


def test_without_a_minimum_the_number_of_actors_stays() -> None:
    assert least_actors(GrpoConfig(rollout_actors=4)) == 4
    assert least_actors(GrpoConfig(rollout_actors=4, rollout_actors_min=2)) == 2
    assert decided(4, 0.0, 0.0, least=4, most=4) == 4
    assert decided(1, 0.0, 0.0, least=0) == 1


def resized(acted: Stage, actors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the controller change the number of actors to `actors` at its next decision."""
    decisions = [Resize(actors, "the test says so")]
    sizing = acted.controller._sizing
    monkeypatch.setattr(sizing, "decide", lambda *_: decisions.pop() if decisions else None)


def test_a_released_actor_hands_back_its_groups_and_may_come_back(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        acted = stage(
            rollout_actors=2,
            rollout_actors_min=1,
            groups_in_flight=1,
            actor_restarts=0,
            staleness_bound=9,
        )
        acted.slow_from = [None, 0]
        async with acted.running():
            await until(lambda: any(line.startswith("actor1 plays") for line in acted.log))
            assert await acted.step(0, 0) is not None
            resized(acted, 1, monkeypatch)
            step = 1
            while "kill actor1" not in acted.log:
                assert await acted.step(step, step) is not None
                step += 1
            assert "drain actor1" in acted.log and acted.controller._fleet.wanted == {0}
            assert acted.controller.unplaced == 1
            await until(lambda: any(acted.spawned[0].begun.values()))
            [held] = [line.split()[-1] for line in acted.log if line.startswith("actor1 plays")]
            assert acted.log.count(f"actor0 plays {held}") == 1
            # The released actor loads no more versions. Its version must not raise weights/lag.
            for later in range(step, step + 3):
                assert await acted.step(later, later) is not None
            step += 3
            rows = [await acted.row() for _ in range(step)]
            last = rows[-1]
            assert last is not None and last[1]["weights/lag"] <= 1
            assert (last[1]["actors/wanted"], last[1]["actors/ready"]) == (1, 1)
            assert last[1]["actors/restarts"] == 0

            resized(acted, 2, monkeypatch)
            assert await acted.step(step, step) is not None
            await until(lambda: len(acted.controller._fleet.ready) == 2)
            assert acted.log.count("start actor2") == 1

    play(scene())
    said = "the run wants 1 instead of 2 rollout actors: the test says so"
    assert said in caplog.text and "wants 2 instead of 1" in caplog.text
    assert "is gone" not in caplog.text


def test_actors_that_are_not_ready_are_released_first_and_at_once(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check an actor that waits for a node, and an actor whose engine still starts."""
    gates = [asyncio.Event(), asyncio.Event()]

    async def starting(actor: FakeActor) -> str:
        if actor.name == "actor1":
            await gates[1].wait()
        return "a node"

    monkeypatch.setattr(FakeActor, "start", starting)

    async def scene() -> None:
        acted = stage(rollout_actors=4, rollout_actors_min=1)
        fleet = acted.controller._fleet
        spawn = fleet._spawn

        def spawned(index: int) -> FakeActor:
            actor = spawn(index)
            assert isinstance(actor, FakeActor)
            actor.placed = gates[0] if actor.name == "actor0" else None
            return actor

        fleet._spawn = spawned
        async with acted.running():
            await until(lambda: fleet.ready == {2, 3} and fleet.unplaced == {0})
            assert await fleet.resize(2) == set()
            await until(lambda: {"kill actor0", "kill actor1"} <= {*acted.log})
            assert fleet.wanted == {2, 3} == fleet.ready and not fleet.unplaced
            assert await fleet.resize(1) == {3}
            assert await fleet.resize(4) == set() and fleet.wanted == {0, 1, 2, 3}
            gates[0].set()
            gates[1].set()
            await until(lambda: fleet.ready == {0, 1, 2, 3})

    play(scene())


def test_an_actor_whose_node_is_taken_back_is_released_first(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check a shrinking run that still waits for the groups of this actor."""

    async def scene() -> None:
        acted = stage(rollout_actors=3, rollout_actors_min=1)
        fleet, actors = acted.controller._fleet, acted.spawned
        async with acted.running():
            await until(lambda: fleet.ready == {0, 1, 2})
            actors[0].running.clear()  # The actor takes its time to hand back its groups.
            await acted.controller.leave({"node of actor0"})
            resized(acted, 2, monkeypatch)
            await acted.controller._resize(0.0)
            assert fleet.wanted == {1, 2} and not {"drain actor1", "drain actor2"} & {*acted.log}
            actors[0].running.set()
            await until(lambda: "kill actor0" in acted.log)
            assert fleet.ready == {1, 2} and len(actors) == 3

    play(scene())


@pytest.mark.parametrize("turns", range(8))
def test_an_actor_that_is_released_while_its_engine_becomes_ready_leaves(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Release the actor some turns of the event loop after its engine is ready."""
    gate = asyncio.Event()

    async def starting(actor: FakeActor) -> str:
        if actor.name == "actor1":
            await gate.wait()
        return "a node"

    monkeypatch.setattr(FakeActor, "start", starting)

    async def scene() -> None:
        acted = stage(rollout_actors=2, rollout_actors_min=1)
        fleet = acted.controller._fleet
        async with acted.running():
            await until(lambda: fleet.ready == {0})
            resized(acted, 1, monkeypatch)
            gate.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            await acted.controller._resize(0.0)
            async with asyncio.timeout(2):
                await until(lambda: "kill actor1" in acted.log)
            assert fleet.ready == {0} and len(acted.controller._driving.actors) == 1

    play(scene())


def test_an_actor_is_busy_with_groups_and_with_held_out_questions(
    stage: Callable[..., Stage], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = asyncio.Event()

    async def validate(actor: FakeActor, *_: object) -> AsyncIterator[tuple[Played, ...]]:
        actor.log.append("validates")
        await answers.wait()
        yield tuple(Played(one, actor.episode(0), 0.0, "") for one in samples[:1])

    monkeypatch.setattr(FakeActor, "validate", validate)

    async def scene() -> None:
        acted = stage(held_out=samples[:1], validation={"every": 1})
        async with acted.running():
            driving = acted.controller._driving
            step = asyncio.create_task(acted.step(0, 0))
            await until(lambda: "validates" in acted.log)
            await step
            await until(lambda: not driving._driven[0].rolls)
            assert driving.busy == 1
            answers.set()
            await until(lambda: driving.busy == 0)

    play(scene())


def test_a_run_with_a_slow_learner_releases_an_actor(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("awares_platform.grpo.sizing.WINDOW_S", 0.2)
    monkeypatch.setattr("awares_platform.grpo.controller._WAIT_S", 0.01)

    async def scene() -> None:
        acted = stage(rollout_actors=2, rollout_actors_min=1)
        async with acted.running():
            await until(lambda: len(acted.controller._fleet.ready) == 2)
            for step in range(8):
                assert await acted.step(step, step) is not None
                await asyncio.sleep(0.1)  # The learner trains.
            assert acted.controller._fleet.wanted == {0}

    play(scene())
    assert "the run wants 1 instead of 2 rollout actors: over 0 s, 0." in caplog.text


def test_a_restart_of_the_learner_begins_a_new_window(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(rollout_actors=2, rollout_actors_min=1)
        controller, clock = acted.controller, Clock()
        controller._sizing = sizing = Sizing(1, 2, clock)
        async with acted.running():
            sizing.observe(0, 2)
            clock.now = WINDOW_S - 1
            await controller.attach(0, Position())
            clock.now = WINDOW_S
            sizing.observe(0, 2)
            assert await acted.step(0, 0) is not None
            assert controller._fleet.wanted == {0, 1}
            clock.now += WINDOW_S
            assert await acted.step(1, 1) is not None
            assert len(controller._fleet.wanted) == 1

    play(scene())


def test_a_run_that_drains_its_actors_keeps_their_number(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check the last step of a job that ends before its time."""

    async def scene() -> None:
        acted = stage(rollout_actors=2, rollout_actors_min=1)
        async with acted.running():
            assert await acted.controller.batch(0, 0, 0, 1) is not None
            await acted.controller.drain(5.0)
            resized(acted, 1, monkeypatch)
            await acted.controller.learned(0, {"policy/kl": 0.0})
            assert acted.controller._fleet.wanted == {0, 1}

    play(scene())
