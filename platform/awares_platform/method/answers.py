"""Asks the base policy for two answers to each sample, at low and at full resolution."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.episode_spec import EpisodeSpec, check_room
from awares.errors import DataError
from awares.family import ModelFamily
from awares.generate import Generate
from awares.one_turn import OneTurn
from awares.sample import Sample
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import environment, episode_budget, episode_spec, greedy
from awares_platform.method.play import Played, check_engine, play


@dataclass(frozen=True, slots=True)
class Answers:
    """The base policy's two answers to a sample.

    Example:
        Answers(sample, low="1", full="7", confidence=0.62, fault="")
    """

    sample: Sample
    low: str
    """Answer at low resolution, or "" if the policy gave none."""
    full: str
    """Answer at full resolution, or "" if the policy gave none."""
    confidence: float
    """Probability that the policy assigns to `low`, or 0 if `low` is ""."""
    fault: str
    """Why the sample cannot be used, or ""."""


async def answer_both(
    method: MethodConfig,
    family: ModelFamily,
    max_tokens: int,
    samples: Sequence[Sample],
    images: Callable[[str], Image],
    generate: Generate,
    chat: ChatFormat,
    limit: asyncio.Semaphore,
    context: int,
    policy_chat: ChatFormat,
) -> list[Answers]:
    """Return the low and the full answer to every sample, in the order of `samples`.

    - `max_tokens` limits each answer. Decoding is greedy.
    - `limit` limits the number of concurrent episodes.
    - `context` is the engine's longest sequence, in tokens. Samples that may be longer get a fault.
    - `chat` and `policy_chat` are the chat formats of the base policy and of the SFT policy.

    Raises EngineFailure if the engine fails for too many episodes.
    """
    asks, budget = environment(method), episode_budget(method, context)
    specs = [
        episode_spec(method, family, greedy(max_tokens), OneTurn(asks, full=full), budget)
        for full in (False, True)
    ]
    low, full = await asyncio.gather(
        *(play(samples, images, generate, chat, spec, limit) for spec in specs)
    )
    check_engine([*low, *full])
    policy_spec = episode_spec(method, family, greedy(max_tokens), asks, budget)
    return [
        _with_room(both(*pair), pair[0], policy_spec, policy_chat)
        for pair in zip(low, full, strict=True)
    ]


def _with_room(answers: Answers, low: Played, spec: EpisodeSpec, chat: ChatFormat) -> Answers:
    """Return `answers`, with a fault if an episode of several turns may exceed the context.

    The base policy answers in one turn, so its answers do not show whether several turns fit.
    """
    if answers.fault or low.episode is None:
        return answers
    try:
        check_room(spec, answers.sample.question, low.episode.image_size, chat)
    except DataError as error:
        return replace(answers, fault=str(error))
    return answers


def both(low: Played, full: Played) -> Answers:
    """Return the answers of a sample's two episodes. A missing answer becomes ""."""
    assert low.sample == full.sample, "the two lists are aligned"
    answers = [played.episode.answer or "" if played.episode else "" for played in (low, full)]
    return Answers(
        sample=low.sample,
        low=answers[0],
        full=answers[1],
        confidence=confidence(low),
        fault=low.fault or full.fault,
    )


def confidence(played: Played) -> float:
    """Return the probability of the answer in a one-turn episode, or 0 without an answer."""
    if played.episode is None or not played.episode.answer:
        return 0.0
    return math.exp(math.fsum(played.episode.turns[0].logprobs))
