import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from awares.crops import CropId
from awares.episode import Episode, StopReason
from awares.errors import DataError
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares_platform.grpo.group import Group, Member, Outcome, Prompt
from awares_platform.grpo.journal import Segment, decode, encode


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
    segment = Segment("9c0e", tuple(groups))
    assert decode(encode(segment), "k") == segment


def test_two_attempts_of_a_prompt_stay_two_groups(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    groups = [make_group(Prompt(3, 0, samples[3], attempt), version=attempt) for attempt in (0, 1)]
    segment = Segment("9c0e", tuple(groups))
    assert decode(encode(segment), "k") == segment


def test_a_damaged_segment_is_named(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    data = encode(Segment("9c0e", (make_group(Prompt(3, 0, samples[3])),)))
    with pytest.raises(DataError, match="runs/x/episodes/00000003.parquet"):
        decode(data[:-20], "runs/x/episodes/00000003.parquet")


def test_corrupt_segments_are_named_and_never_read_as_other_episodes(
    make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    groups = [make_group(Prompt(number, 0, sample)) for number, sample in enumerate(samples)]
    data, rng = encode(Segment("9c0e", tuple(groups))), random.Random(0)
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 8))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with suppress(DataError):
            assert decode(bytes(broken), "k").groups == tuple(groups)
