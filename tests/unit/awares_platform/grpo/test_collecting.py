import gc
from collections.abc import Iterator

import pytest

from awares_platform.grpo.collecting import collect_rarely


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Yield a list to which each garbage collection adds the generation that it collected."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            found.append(info["generation"])

    before = gc.get_threshold()
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
    collect_rarely()
    collections.clear()
    rare = hold(300_000)
    assert collections.count(2) == 0 and 4 <= len(collections) <= 6
    assert len(usual) == len(rare)
