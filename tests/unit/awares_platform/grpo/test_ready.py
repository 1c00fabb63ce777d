from collections.abc import Callable

from awares.sample import Sample
from awares_platform.grpo.group import Group, Position, Prompt
from awares_platform.grpo.ready import ReadyGroups, Settled

Make = Callable[..., Group]


def filled(samples: list[Sample], make_group: Make, versions: dict[int, int]) -> ReadyGroups:
    """Return ready groups. `versions` maps a prompt's number to the version of its group."""
    ready = ReadyGroups()
    for number, version in versions.items():
        ready.add(make_group(Prompt(number, 0, samples[0]), version), version)
    return ready


def numbers(groups: list[Group]) -> list[int]:
    return [group.prompt.number for group in groups]


def test_the_oldest_groups_come_first(samples: list[Sample], make_group: Make) -> None:
    ready = filled(samples, make_group, {4: 2, 9: 1, 7: 3, 5: 1, 1: 3})
    assert numbers(ready.first(9, since=0)) == [5, 9, 4, 1, 7]
    assert numbers(ready.first(2, since=0)) == [5, 9]
    assert numbers(ready.first(2, since=2)) == [4, 1]
    assert (ready.count(since=2), len(ready)) == (3, 5)


def test_stale_groups_leave(samples: list[Sample], make_group: Make) -> None:
    ready = filled(samples, make_group, {4: 2, 9: 1, 7: 3})
    assert numbers(ready.drop(before=3)) == [4, 9]
    assert numbers(ready.drop(before=3)) == []
    assert (ready.numbers, numbers(ready.first(9, since=0))) == ({7}, [7])


def test_a_settled_number_counts_once() -> None:
    settled = Settled(Position(2, (4,)))
    for number in (1, 2, 3, 3, 4):
        settled.add(number)
    assert settled.position() == Position(5)
    settled.add(7)
    assert settled.position() == Position(5, (7,))
