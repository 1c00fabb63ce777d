"""Runs many episodes concurrently on one engine, for curation and evaluation."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.episode import Episode, StopReason, run_episode
from awares.episode_spec import EpisodeSpec, check_room
from awares.errors import AwaresError, DataError
from awares.generate import Generate
from awares.sample import Sample

FAILED_SHARE = 0.05
"""The results are rejected if the episodes of more than this share of the samples fail."""


class EngineFailure(AwaresError):
    """The engine failed for too many episodes, so the results of all episodes are rejected."""


@dataclass(frozen=True, slots=True)
class Played:
    """A sample with its episode.

    Example:
        Played(sample, episode, latency_s=0.021, fault="")
    """

    sample: Sample
    episode: Episode | None
    """The episode, or None if the image cannot be read or the question is too long."""
    latency_s: float
    """Duration of the episode in seconds, without image decoding, or 0 if there is no episode."""
    fault: str
    """Why there is no episode, or why the episode failed, or ""."""


async def play(
    samples: Sequence[Sample],
    images: Callable[[str], Image],
    generate: Generate,
    chat: ChatFormat,
    spec: EpisodeSpec,
    limit: asyncio.Semaphore,
) -> list[Played]:
    """Play one episode per sample, and return the results in the order of `samples`.

    `limit` limits the number of concurrent episodes. A sample with an unreadable image or a too
    long question gets a fault and no episode.
    """

    async def one(sample: Sample) -> Played:
        async with limit:
            try:
                image = await asyncio.to_thread(images, sample.image)
                check_room(spec, sample.question, image.size, chat)
            except DataError as error:
                return Played(sample, None, 0.0, str(error))
            started = time.perf_counter()
            episode = await run_episode(sample, image, generate, chat, spec, sample.sample_id)
            return Played(sample, episode, time.perf_counter() - started, episode.error)

    return list(await asyncio.gather(*(one(sample) for sample in samples)))


def check_engine(played: Sequence[Played]) -> None:
    """Raise EngineFailure if the episodes of more than 5 % of the samples ended in an error.

    Without this check, the failures of an engine would look like failures of the policy.
    """
    failed = [one for one in played if one.episode and one.episode.stop is StopReason.ERROR]
    if len(failed) > FAILED_SHARE * len(played):
        first = failed[0]
        raise EngineFailure(
            f"the engine failed for {len(failed)} of {len(played)} questions; "
            f"the first, {first.sample.sample_id}: {first.fault}"
        )
