"""Tests how unfinished groups are encoded, and how the buffer hands them to the next actor."""

import io
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError
from awares.sample import Sample
from awares.view import View
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import Group, GroupRollout, Outcome, Position, Prompt
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.segment import FORMAT, Header, Segment, StoredSegment, decode, encode

HEADER = Header("9c0e", root=1, through=18, training=None)
PROMPT = Prompt(18, 2, Sample("s0", "ab" * 32, "digit?", "7"), attempt=1)
IDS = st.integers(0, 2**31 - 1)
VIEWS = st.builds(
    View,
    st.none() | st.tuples(*[st.integers(0, 2**31 - 1)] * 4).map(lambda box: box),
    st.floats(0.01, 1.0),
)


@st.composite
def turns(draw: st.DrawFn, stop: StopReason | None) -> Turn:
    sampled = draw(st.lists(st.tuples(IDS, st.floats(-99, 0), st.integers(0, 2**62)), max_size=5))
    ids, logprobs, versions = zip(*sampled, strict=True) if sampled else ((), (), ())
    return Turn(
        context_ids=tuple(draw(st.lists(IDS, max_size=5))),
        views=tuple(draw(st.lists(VIEWS, max_size=3))),
        sampled_ids=ids,
        logprobs=logprobs,
        versions=versions,
        text=draw(st.text(max_size=9)),
        crops=tuple(draw(st.lists(st.sampled_from(["0", "8", "all"]), max_size=3))),
        stop=stop,
        area=draw(st.floats(0, 4)),
    )


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """Return an episode that was cut in its last turn, or has ended there."""
    stop = draw(st.sampled_from([StopReason.UNFINISHED, StopReason.ANSWER, StopReason.MALFORMED]))
    asked = [draw(turns(None)) for _ in range(draw(st.integers(0, 2)))]
    return Episode(
        sample_id="s0",
        image="ab" * 32,
        image_size=(112, 64),
        turns=(*asked, draw(turns(stop))),
        answer="7" if stop is StopReason.ANSWER else None,
        stop=stop,
        visual_tokens=draw(st.integers(0, 2**31 - 1)),
        rtr_token=draw(st.floats(0, 9)),
        rtr_pixel=draw(st.floats(0, 9)),
    )


@given(cut=st.lists(episodes(), min_size=1, max_size=3))
def test_unfinished_groups_come_back_exactly(cut: list[Episode]) -> None:
    group = Group.unfinished(PROMPT, GroupRollout(tuple(cut), 1.0, 3.5))
    stored = StoredSegment(encode(Segment(HEADER, (group,))), "a")
    assert stored.pairs == ((18, 1),) and stored.finished == set()
    assert stored.group((18, 1)) == group and group.episodes == tuple(cut)
    assert stored.sampled_at((18, 1)) == group.versions


def test_the_format_has_a_version_and_a_newer_one_is_refused(
    make_group: Callable[..., Group],
) -> None:
    group = make_group(PROMPT)
    table = pq.read_table(io.BytesIO(encode(Segment(HEADER, (group,)))))
    held = dict(table.schema.metadata)
    assert held.pop(b"format") == str(FORMAT).encode()

    def written(metadata: dict[bytes, bytes]) -> bytes:
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), sink, write_page_checksum=True)
        return sink.getvalue()

    # Older releases had no unfinished groups, and recorded no version of the format.
    assert decode(written(held), "a").groups == (group,)
    with pytest.raises(DataError, match=r"it has version 3 of the format, .* reads 2"):
        decode(written({**held, b"format": b"3"}), "a")


@pytest.fixture
def buffer(samples: list[Sample]) -> EpisodeBuffer:
    found = EpisodeBuffer(Prompts(samples, seed=0), groups_per_step=2, bound=1)
    found.restore(Position(), [], Lineage(first=0))
    return found


@pytest.fixture
def cut(make_episode: Callable[..., Episode]) -> Callable[[Prompt, int], Group]:
    """Return a factory for unfinished groups with tokens of a given version and of the next one."""

    def make(prompt: Prompt, version: int = 0) -> Group:
        begun = make_episode(version, None, StopReason.UNFINISHED)
        return Group.unfinished(prompt, GroupRollout((make_episode(version), begun), 0.0, 1.0))

    return make


def test_a_group_that_is_handed_back_is_issued_again_with_its_episodes(
    buffer: EpisodeBuffer, cut: Callable[..., Group], make_group: Callable[..., Group]
) -> None:
    first, second = buffer.issue(), buffer.issue()
    group = cut(first)
    assert buffer.begun(first) == () and buffer.add(group)
    assert (buffer.in_flight, len(buffer), buffer.begun_groups) == (1, 0, 1)
    assert not buffer.add(group)  # A late copy has no effect.
    again = buffer.issue()
    assert again == first and buffer.begun(again) == group.episodes
    # The second actor dies, so the third actor gets the same episodes.
    buffer.reissue(again)
    assert buffer.begun(buffer.issue()) == group.episodes
    assert buffer.add(make_group(again)) and buffer.add(make_group(second))
    assert [one.prompt.number for one in buffer.take(0, 0).groups] == [0, 1]
    assert buffer.position == Position(2) and buffer.begun_groups == 0


def test_episodes_that_would_be_too_stale_are_begun_anew(
    buffer: EpisodeBuffer, cut: Callable[..., Group]
) -> None:
    """Check that tokens of version 0 may train the update of version 1, but not of version 2."""
    prompt = buffer.issue()
    buffer.add(cut(prompt, version=0))
    assert not buffer.full(1) and buffer.begun(prompt)
    assert not buffer.full(2) and buffer.begun(prompt) == ()
    assert buffer.issue() == prompt


def test_a_restored_buffer_continues_groups_but_not_those_of_abandoned_versions(
    buffer: EpisodeBuffer, cut: Callable[..., Group], make_group: Callable[..., Group]
) -> None:
    prompts = [buffer.issue() for _ in range(4)]
    kept, abandoned = cut(prompts[0], version=2), cut(replace(prompts[1], attempt=1), version=5)
    done, settled = make_group(prompts[2], version=1), cut(prompts[3], version=2)
    found = [kept, abandoned, done, settled]
    buffer._in_flight.clear()
    buffer.restore(Position(0, (3,)), found, Lineage(((0, 3),), first=7))
    assert [group.prompt.number for group in buffer._ready.first(9, since=0)] == [2]
    first, second, third = (buffer.issue() for _ in range(3))
    assert (first, buffer.begun(first)) == (prompts[0], kept.episodes)
    assert (second.number, second.attempt, buffer.begun(second)) == (1, 1, ())
    assert third.number == 4 and kept.outcome is Outcome.UNFINISHED


def test_a_learners_restart_keeps_the_episodes_of_groups_in_flight(
    buffer: EpisodeBuffer, cut: Callable[..., Group]
) -> None:
    prompt = buffer.issue()
    group = cut(prompt)
    buffer.add(group)
    assert buffer.issue() == prompt
    buffer.restore(Position(), [group], Lineage(first=0))
    assert buffer.in_flight == 1 and buffer.begun(prompt) == group.episodes
    buffer.reissue(prompt)
    assert [buffer.issue().number for _ in range(2)] == [0, 1]


def test_a_parquet_file_without_metadata_is_no_segment() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"prompt": [1]}), file)
    with pytest.raises(DataError, match="a-key"):
        decode(file.getvalue(), "a-key")
