import gc
from collections.abc import Iterator

import pytest

from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.collecting import collect_rarely


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Yield a list to which each garbage collection adds the generation that it collected."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            found.append(info["generation"])

    before = gc.get_threshold()
    # Exclude the objects of earlier tests. Full collections would be rarer with more objects.
    gc.freeze()
    gc.collect()
    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)
    gc.set_threshold(*before)
    gc.unfreeze()


def hold(count: int) -> list[list[int]]:
    """Return `count` objects that the garbage collector must examine."""
    return [[number] for number in range(count)]


def test_held_objects_are_not_examined_again_and_again(collections: list[int]) -> None:
    gc.set_threshold(700, 10, 10)  # These are the defaults of Python 3.11.
    usual = hold(300_000)
    assert collections.count(2) >= 1 and len(collections) > 400
    collect_rarely(GrpoConfig())
    collections.clear()
    rare = hold(300_000)
    assert collections.count(2) == 0 and 4 <= len(collections) <= 6
    assert len(usual) == len(rare)


def test_the_groups_of_a_large_step_are_never_examined(collections: list[int]) -> None:
    settings = GrpoConfig(groups_per_step=400, group_size=8, staleness_bound=1)
    collect_rarely(settings)
    collections.clear()
    # Each of the 400 groups has 8 episodes, and each episode has 20 objects.
    batches = [hold(400 * 8 * 20) for _ in range(2)]
    for _ in range(10):
        batches.append(hold(400 * 8 * 20))
        del batches[0]
    assert collections == []


class Cycle:
    """An object that refers to itself, so only the garbage collector can release it."""

    released = 0

    def __init__(self) -> None:
        self.own = self

    def __del__(self) -> None:
        Cycle.released += 1


def test_reference_cycles_are_released_once_there_are_many(collections: list[int]) -> None:
    collect_rarely(GrpoConfig())
    collections.clear()
    Cycle.released = 0
    for _ in range(60_000):
        Cycle()
    assert len(collections) <= 2 and Cycle.released > 20_000
