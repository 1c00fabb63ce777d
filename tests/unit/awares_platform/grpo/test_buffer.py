from collections.abc import Callable

import pytest

from awares.sample import Sample
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import Group, Outcome, Position, StepBatch
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.ready import Settled

Make = Callable[..., Group]


@pytest.fixture
def make_buffer(samples: list[Sample]) -> Callable[..., EpisodeBuffer]:
    def make(bound: int = 1) -> EpisodeBuffer:
        return EpisodeBuffer(Prompts(samples, seed=0), groups_per_step=2, bound=bound)

    return make


def numbers(batch: StepBatch) -> list[int]:
    return [group.prompt.number for group in batch.groups]


def test_the_gate_lets_bound_plus_one_batches_start_before_the_first_step(
    make_buffer: Callable[..., EpisodeBuffer],
) -> None:
    buffer = make_buffer(bound=1)
    buffer.restore(Position(), [], Lineage(first=0))
    issued = []
    while buffer.room(0) > 0:
        issued.append(buffer.issue().number)
    # With the staleness bound 1, there is room for 1 + 1 = 2 batches of 2 prompts each.
    assert issued == [0, 1, 2, 3]


def test_the_gate_counts_versions_that_the_actor_lacks(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer(bound=1)
    buffer.restore(Position(), [], Lineage(first=0))
    for _ in range(2):
        buffer.add(make_group(buffer.issue(), version=0))
    buffer.take(0, version=0)
    assert buffer.room(0) == 2
    assert buffer.room(1) == 4


def test_bound_zero_is_synchronous(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer(bound=0)
    buffer.restore(Position(), [], Lineage(first=0))
    prompts = [buffer.issue() for _ in range(buffer.room(0))]
    assert len(prompts) == 2 and buffer.room(0) == 0
    for prompt in prompts:
        buffer.add(make_group(prompt, version=0))
    buffer.take(0, version=0)
    assert buffer.room(0) == 0  # There is room only after version 1 is loaded.
    assert buffer.room(1) == 2


def test_nothing_starts_with_weights_from_before_the_learner_attached(
    make_buffer: Callable[..., EpisodeBuffer],
) -> None:
    buffer = make_buffer(bound=3)
    buffer.restore(Position(), [], Lineage(first=7))
    assert buffer.room(6) == 0
    assert buffer.room(7) == 8


def test_a_batch_holds_the_oldest_weights_first_then_prompt_order(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer(bound=2)
    buffer.restore(Position(), [], Lineage(first=0))
    prompts = [buffer.issue() for _ in range(4)]
    for prompt, version in ((prompts[3], 1), (prompts[2], 0), (prompts[1], 1), (prompts[0], 1)):
        buffer.add(make_group(prompt, version))
    assert numbers(buffer.take(0, version=1)) == [2, 0]
    assert numbers(buffer.take(1, version=2)) == [1, 3]


def test_groups_beyond_the_bound_are_dropped_and_their_prompts_issued_again(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer(bound=1)
    buffer.restore(Position(), [], Lineage(first=0))
    first, second, third = (buffer.issue() for _ in range(3))
    buffer.add(make_group(first, version=0))
    buffer.add(make_group(second, version=1))
    assert not buffer.full(version=2)  # The group of prompt 0 is two versions old. The bound is 1.
    assert (buffer.dropped, len(buffer)) == (1, 1)
    again = buffer.issue()
    assert (again.number, again.attempt) == (0, 1)
    # The group of the first attempt was dropped, so the buffer refuses a late copy of it.
    assert not buffer.add(make_group(first, version=2))
    assert buffer.add(make_group(again, version=2))
    assert numbers(buffer.take(0, version=2)) == [1, 0]
    assert third.number == 2


def test_given_up_prompts_come_first_and_in_order(
    make_buffer: Callable[..., EpisodeBuffer],
) -> None:
    buffer = make_buffer()
    prompts = [buffer.issue() for _ in range(3)]
    buffer.reissue(prompts[2])
    buffer.reissue(prompts[0])
    buffer.reissue(prompts[0])  # A repeated call has no effect.
    assert [buffer.issue().number for _ in range(3)] == [0, 2, 3]


def test_a_group_counts_once(make_buffer: Callable[..., EpisodeBuffer], make_group: Make) -> None:
    buffer = make_buffer()
    prompt = buffer.issue()
    assert buffer.add(make_group(prompt))
    assert not buffer.add(make_group(prompt))
    assert len(buffer) == 1


def test_useless_groups_are_settled_and_free_their_room(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer(bound=0)
    buffer.restore(Position(), [], Lineage(first=0))
    buffer.add(make_group(buffer.issue(), outcome=Outcome.UNIFORM))
    assert (len(buffer), buffer.room(0), buffer.position) == (0, 2, Position(1))


def test_position_is_a_watermark_and_what_lies_beyond() -> None:
    settled = Settled(Position())
    for number in (1, 3, 0):
        settled.add(number)
    position = settled.position()
    assert position == Position(2, (3,))
    assert [number in settled for number in range(5)] == [True, True, False, True, False]
    assert [number in position for number in range(5)] == [True, True, False, True, False]


def test_restart_loses_nothing_and_counts_nothing_twice(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    """Check which groups a new learner gets after the first learner has died.

    The first learner took two steps, but its checkpoint contains only the first step.
    """
    buffer = make_buffer(bound=4)
    buffer.restore(Position(), [], Lineage(first=0))
    journal = [make_group(buffer.issue(), version=0) for _ in range(6)]
    for group in journal:
        buffer.add(group)
    committed = buffer.take(0, version=0).position
    assert numbers(buffer.take(1, version=1)) == [2, 3]
    assert buffer.issue().number == 6

    fresh = make_buffer(bound=4)
    fresh.restore(committed, journal, Lineage(((0, 1),), first=2))
    batches = [numbers(fresh.take(step, version=2)) for step in (1, 2)]
    # The groups 2 and 3 of the lost step come first, then the waiting groups 4 and 5. The groups 0
    # and 1 are in the checkpoint.
    assert batches == [
        [2, 3],
        [4, 5],
    ]
    assert fresh.issue().number == 6  # Prompt 6 was in flight, so it is issued again.


def test_restart_issues_prompts_that_the_journal_lacks(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer()
    prompts = [buffer.issue() for _ in range(5)]
    journal = [
        make_group(prompts[4], version=0),
        make_group(prompts[1], version=0, outcome=Outcome.FAILED),
    ]
    fresh = make_buffer()
    fresh.restore(Position(1), journal, Lineage())
    assert [fresh.issue().number for _ in range(3)] == [2, 3, 5]
    assert fresh.position == Position(2)


def test_a_learners_restart_keeps_what_is_in_flight(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    buffer = make_buffer(bound=4)
    buffer.restore(Position(), [], Lineage(first=0))
    groups = [make_group(buffer.issue()) for _ in range(2)]
    for group in groups:
        buffer.add(group)
    flying = buffer.issue()
    buffer.take(0, version=0)
    buffer.restore(Position(), groups, Lineage(((0, 0),), first=1))
    assert (len(buffer), buffer.in_flight) == (2, 1)
    assert buffer.add(make_group(flying))
    assert buffer.issue().number == 3


def test_groups_of_an_abandoned_branch_are_issued_again_at_the_next_attempt(
    make_buffer: Callable[..., EpisodeBuffer], make_group: Make
) -> None:
    """Check the groups after a restart that abandons versions 4 to 9.

    The new learner publishes the weights of version 3 again as version 10.
    """
    buffer = make_buffer(bound=4)
    buffer.restore(Position(), [], Lineage(first=1))
    kept, abandoned, flying = (buffer.issue() for _ in range(3))
    # The tokens of the first group have versions 1 to 3. Those of the second group have versions 2
    # to 4.
    groups = [make_group(kept, version=1), make_group(abandoned, version=2)]
    assert all(buffer.add(one) for one in groups)
    buffer.restore(Position(), groups, Lineage(((1, 3),), first=10), stale={7: 1})
    assert (len(buffer), buffer.dropped) == (1, 2)
    assert [(one.number, one.attempt) for one in (buffer.issue(), buffer.issue())] == [
        (1, 1),
        (3, 0),
    ]
    # Version 10 has the weights of version 3. Version 1 is therefore four updates older than
    # version 12, and five older than version 13. The staleness bound is 4.
    assert not buffer.full(12) and (len(buffer), buffer.dropped) == (1, 2)
    assert not buffer.full(13) and (len(buffer), buffer.dropped) == (0, 3)
    # The group was in flight at the restart, and has tokens of the abandoned version 8. The buffer
    # issues its prompt again.
    assert buffer.add(make_group(flying, version=8)) and len(buffer) == 0
    attempts = [(one.number, one.attempt) for one in (buffer.issue() for _ in range(6))]
    assert attempts == [(0, 1), (2, 1), (4, 0), (5, 0), (6, 0), (7, 2)]
