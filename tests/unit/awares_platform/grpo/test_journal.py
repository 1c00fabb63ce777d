import io
import random
from collections.abc import Callable
from contextlib import suppress

import pyarrow.parquet as pq
import pytest

from awares.crops import CropId
from awares.episode import Episode, StopReason
from awares.errors import DataError
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares_platform.grpo.group import Group, Member, Outcome, Prompt
from awares_platform.grpo.segment import Header, Segment, StoredSegment, Training, decode, encode

HEADER = Header("9c0e", root=1, through=18, training=Training(12, 13, ((17, 1), (18, 0)), 17))


def test_groups_come_back_exactly(call_episode: Episode, make_group: Callable[..., Group]) -> None:
    sample = Sample(
        sample_id="s0",
        image="ab" * 32,
        question="sum?",
        answer="7",
        kind="sum",
        evidence=((4, 4, 34, 34),),
        label=Label.HR,
        crops=(CropId.TOP_LEFT, CropId.ALL),
    )
    failed = Episode(
        sample_id="s0",
        image="ab" * 32,
        image_size=(0, 0),
        turns=(),
        answer=None,
        stop=StopReason.ERROR,
        visual_tokens=0,
        rtr_token=0.0,
        rtr_pixel=0.0,
        error="EngineDead: gone",
    )
    members = (
        Member(call_episode, RewardValue(9.74, {"answer": 10.0, "cost": 0.26}), True, 1 / 3),
        Member(failed, RewardValue(0.0, {}), False, None),
    )
    groups = [
        Group(Prompt(17, 2, sample, 1), members, Outcome.READY, 1.25),
        make_group(Prompt(18, 2, sample), 5, Outcome.UNIFORM),
    ]
    segment = Segment(HEADER, tuple(groups))
    assert decode(encode(segment), "k") == segment


def test_two_attempts_of_a_prompt_stay_two_groups(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    groups = [make_group(Prompt(3, 0, samples[3], attempt), version=attempt) for attempt in (0, 1)]
    segment = Segment(HEADER, tuple(groups))
    assert decode(encode(segment), "k") == segment


def test_a_damaged_segment_is_named(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    data = encode(Segment(HEADER, (make_group(Prompt(3, 0, samples[3])),)))
    with pytest.raises(DataError, match="runs/x/episodes/00000003.parquet"):
        decode(data[:-20], "runs/x/episodes/00000003.parquet")


def test_corrupt_segments_are_named_and_never_read_as_other_episodes(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    groups = [make_group(Prompt(number, 0, sample)) for number, sample in enumerate(samples)]
    data, rng = encode(Segment(HEADER, tuple(groups))), random.Random(0)
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 8))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with suppress(DataError):
            assert decode(bytes(broken), "k").groups == tuple(groups)


def test_a_changed_header_is_noticed(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    data = encode(Segment(HEADER, (make_group(Prompt(3, 0, samples[3])),)))
    table = pq.read_table(io.BytesIO(data))
    header = table.schema.metadata[b"header"].replace(b'"through": 18', b'"through": 99')
    changed = io.BytesIO()
    metadata = {**table.schema.metadata, b"header": header}
    pq.write_table(table.replace_schema_metadata(metadata), changed)
    with pytest.raises(DataError, match="k: .*its header is damaged"):
        decode(changed.getvalue(), "k")


def test_a_stored_segment_tells_versions_and_outcome_without_decoding(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    groups = (
        make_group(Prompt(3, 0, samples[3]), version=4),
        make_group(Prompt(4, 0, samples[4], 2), version=7, outcome=Outcome.UNIFORM),
    )
    stored = StoredSegment(encode(Segment(HEADER, groups)), "k")
    assert stored.header == HEADER and stored.pairs == ((3, 0), (4, 2))
    assert stored.sampled_at((3, 0)) == {4, 5, 6} and stored.outcome((4, 2)) is Outcome.UNIFORM
    assert stored.group((4, 2)) == groups[1]


def test_a_large_segment_keeps_its_groups_in_order(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    """Check 70 groups, because the encoder converts at most 32 groups at once."""
    groups = [
        make_group(Prompt(number, 0, samples[number % len(samples)]), version=number)
        for number in range(70)
    ]
    segment = Segment(HEADER, tuple(groups))
    assert decode(encode(segment), "k") == segment
    assert decode(encode(Segment(HEADER, ())), "k").groups == ()
