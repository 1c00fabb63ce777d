"""Tests that an episode resumes after its last sampled token when its engine was interrupted."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from awares.episode import Episode, StopReason, run_episode
from awares.episode_spec import EpisodeSpec
from awares.generate import FinishReason, GenerateRequest, Generation, Sampling
from awares.sample import Sample

SAMPLE = Sample("s1", "hash", "digit on the red circle?", "7")
IMAGE = Image.linear_gradient("L").resize((112, 112)).convert("RGB")
TURNS = ("GET_CROPS: ['0', '8']", "7")


class Tape:
    """An engine that samples the same tokens whenever it gets the same prompt.

    The engine is interrupted once it has sampled `left` tokens. Every token has the weight version
    `version`.
    """

    def __init__(self, chat, left: int, version: int) -> None:
        self.chat, self.left, self.version = chat, left, version
        self.requests: list[GenerateRequest] = []

    async def __call__(self, request: GenerateRequest) -> Generation:
        self.requests.append(request)
        turn = self.chat.target(TURNS[1 if len(request.images) > 1 else 0])
        begun = next(
            count
            for count in range(len(turn), -1, -1)
            if request.token_ids[len(request.token_ids) - count :] == turn[:count]
        )
        assert request.sampling.max_tokens == 64 - begun
        ids = turn[begun : begun + self.left]
        self.left -= len(ids)
        whole = begun + len(ids) == len(turn)
        finish = FinishReason.STOP if whole and ids else FinishReason.INTERRUPTED
        logprobs = tuple(-1.0 / (begun + place + 1) for place in range(len(ids)))
        return Generation(ids, logprobs, (self.version,) * len(ids), finish)


@pytest.fixture
def spec(limits) -> EpisodeSpec:
    return EpisodeSpec(limits, sampling=Sampling(temperature=1.0, max_tokens=64))


def play(chat, spec, cuts: Sequence[int]) -> tuple[list[Episode], list[Tape]]:
    """Play one episode on several engines, of which all but the last are interrupted.

    Engine i stops after `cuts[i]` tokens. Return the episode as each engine left it, and all
    engines.
    """
    episodes: list[Episode] = []
    tapes = [Tape(chat, left, version) for version, left in enumerate((*cuts, 10**6))]
    for tape in tapes:
        begun = episodes[-1] if episodes else None
        if begun is None or begun.stop is StopReason.UNFINISHED:
            playing = run_episode(SAMPLE, IMAGE, tape, chat, spec, "ep", begun)
            episodes.append(asyncio.run(playing))
    return episodes, tapes


def sampled(episode: Episode, field: str) -> tuple:
    return tuple(value for turn in episode.turns for value in getattr(turn, field))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 12), max_size=4))
def test_a_cut_episode_goes_on_from_its_tokens(chat, spec, cuts: list[int]) -> None:
    [whole], _ = play(chat, spec, [])
    episodes, tapes = play(chat, spec, cuts)
    last, prompt = episodes[-1], tapes[len(episodes) - 1].requests[-1]
    for field in ("sampled_ids", "logprobs", "context_ids", "views", "crops"):
        assert sampled(last, field) == sampled(whole, field)
    assert (last.answer, last.stop, last.area) == ("7", StopReason.ANSWER, whole.area)
    assert (last.visual_tokens, last.rtr_token) == (whole.visual_tokens, whole.rtr_token)
    # No token is sampled twice, and each token keeps the version of its engine.
    versions = sampled(last, "versions")
    counts = [versions.count(version) for version in range(len(episodes))]
    assert counts[:-1] == cuts[: len(episodes) - 1] and sorted(versions) == list(versions)
    for earlier in episodes[:-1]:
        assert earlier.stop is StopReason.UNFINISHED and earlier.answer is None
        held = sampled(earlier, "sampled_ids")
        assert held == sampled(last, "sampled_ids")[: len(held)]
        assert sampled(earlier, "versions") == versions[: len(held)]
    shown = [image.tobytes() for image in prompt.images]
    assert shown == [image.tobytes() for image in play(chat, spec, [])[1][0].requests[-1].images]


def test_an_episode_that_was_cut_in_its_second_turn_asks_for_no_crop_again(chat, spec) -> None:
    first = len(chat.target(TURNS[0]))
    (cut, whole), (_, tape) = play(chat, spec, [first + 1])
    assert [turn.stop for turn in cut.turns] == [None, StopReason.UNFINISHED]
    assert cut.crops == whole.crops == ("0", "8")
    [request] = tape.requests
    asked, answered = cut.turns
    assert request.token_ids == (
        *asked.context_ids,
        *asked.sampled_ids,
        *answered.context_ids,
        *answered.sampled_ids,
    )
    assert len(request.images) == 3 and len(answered.sampled_ids) == 1


def test_a_failure_after_a_cut_is_an_error_and_keeps_the_whole_turns(chat, spec) -> None:
    async def broken(request: GenerateRequest) -> Generation:
        raise RuntimeError("the engine is gone")

    first = len(chat.target(TURNS[0]))
    cut = play(chat, spec, [first + 1])[0][0]
    failed = asyncio.run(run_episode(SAMPLE, IMAGE, broken, chat, spec, "ep", cut))
    assert failed.stop is StopReason.ERROR and failed.turns == cut.turns[:1]
    assert failed.error == "RuntimeError: the engine is gone"
