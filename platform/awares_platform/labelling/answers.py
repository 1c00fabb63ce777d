"""The base policy's two answers to each sample, at low and at full resolution."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.generate import Generate
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.engine.play import Played, check_engine, play
from awares_platform.method.environment import episode_spec, greedy


@dataclass(frozen=True, slots=True)
class Answers:
    """The base policy's two answers to a sample; "" stands for none. `confidence` is the probability that the policy gave its low
    answer, 0 for none. `fault` says why the sample cannot be used.

    Example:
        Answers(sample, "1", "7", 0.62, "")
    """

    sample: Sample
    low: str
    full: str
    confidence: float
    fault: str


async def answer_both(
    config: PlatformConfig,
    samples: Sequence[Sample],
    images: Callable[[str], Image],
    generate: Generate,
    chat: ChatFormat,
    limit: asyncio.Semaphore,
) -> list[Answers]:
    """Both answers to every sample, in order. Raises EngineFailure if the engine fails for more than a few."""
    low, full = await asyncio.gather(
        play(
            samples,
            images,
            generate,
            chat,
            episode_spec(config.method, greedy(config.curate.max_tokens), view="low", turns=1),
            limit,
        ),
        play(
            samples,
            images,
            generate,
            chat,
            episode_spec(config.method, greedy(config.curate.max_tokens), view="full", turns=1),
            limit,
        ),
    )
    check_engine([*low, *full])
    return [both(*pair) for pair in zip(low, full, strict=True)]


def both(low: Played, full: Played) -> Answers:
    """The two answers to one sample; an episode without an answer (a call, a malformed turn) gives ""."""
    assert low.sample == full.sample, "the two lists are aligned"
    answers = [played.episode.answer or "" if played.episode else "" for played in (low, full)]
    sampled = low.episode.turns[0].logprobs if low.episode and low.episode.answer else (-math.inf,)
    return Answers(
        low.sample, answers[0], answers[1], math.exp(math.fsum(sampled)), low.fault or full.fault
    )
