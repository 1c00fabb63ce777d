"""Tests that packing keeps every token, and that an unpickled episode stays packed until read."""

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest

from awares.episode import Episode, StopReason, Turn
from awares.packed import Packable
from awares.view import View

ASKS = Turn(
    context_ids=(1, 151655, 2**31 - 1),
    views=(View(), View((0, 0, 56, 56), 0.25)),
    sampled_ids=(5, 6, 7, 8),
    logprobs=(-0.1, 0.0, -1e-300, -1 / 3),
    versions=(3, 3, 2**40, 3),
    text="GET_CROPS: ['0']",
    crops=("0",),
    stop=None,
    area=0.25,
)
EMPTY = replace(ASKS, context_ids=(), sampled_ids=(), logprobs=(), versions=(), cut=True)
EPISODE = Episode(
    sample_id="s0",
    image="ab",
    image_size=(112, 112),
    turns=(ASKS, EMPTY),
    answer=None,
    stop=StopReason.UNFINISHED,
    visual_tokens=4,
    rtr_token=0.25,
    rtr_pixel=0.25,
)


def held(value: Packable[Any], name: str) -> bool:
    """Return whether the field `name` of `value` is unpacked. The call itself unpacks nothing."""
    try:
        vars(type(value))[name].__get__(value)
    except AttributeError:
        return False
    return True


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


@pytest.mark.parametrize("turn", [ASKS, EMPTY])
def test_a_turn_keeps_all_of_its_tokens(turn: Turn) -> None:
    found = travelled(turn)
    assert not any(held(found, name) for name in Turn.PACKED)
    assert found == turn and hash(found) == hash(turn) and repr(found) == repr(turn)
    assert [type(getattr(found, name)) for name in Turn.PACKED] == [tuple] * 4
    assert travelled(found).packed == turn.packed


def test_the_figures_of_packed_tokens_equal_those_of_the_turn() -> None:
    packed = travelled(ASKS).packed
    assert (packed.context_count, packed.sampled_count) == (3, 4)
    assert [*packed.runs] == [(3, 2), (2**40, 1), (3, 1)]
    assert packed.finite


def test_an_episode_stays_packed_on_its_way_through_several_processes() -> None:
    found = travelled(travelled(EPISODE))
    assert found.packed == EPISODE.packed and found.image_size == (112, 112)
    assert not held(found, "turns")
    assert found == EPISODE and found.turns == (ASKS, EMPTY)


def test_the_figures_of_a_packed_episode_equal_those_of_its_turns() -> None:
    packed = travelled(EPISODE).packed
    assert (packed.count, packed.tokens) == (2, ((3, 3), (2**40, 1)))
    assert packed.sampled_count == 4 and packed.finite


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_not_finite_shows_in_the_figures(wrong: float) -> None:
    spoilt = replace(ASKS, logprobs=(-0.1, wrong, -0.2, -0.3))
    assert not replace(EPISODE, turns=(EMPTY, spoilt)).packed.finite


def test_an_id_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        pickle.dumps(replace(ASKS, sampled_ids=(5, 6, 7, 2**31)))


def test_other_attributes_are_still_errors() -> None:
    with pytest.raises(AttributeError, match="Turn has no attribute 'tokens'"):
        getattr(travelled(ASKS), "tokens")  # noqa: B009
