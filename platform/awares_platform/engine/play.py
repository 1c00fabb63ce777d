"""Many episodes at once on one engine: what curation and evaluation do with a list of questions."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.episode import Episode, EpisodeSpec, StopReason, run_episode
from awares.errors import AwaresError, DataError
from awares.generate import Generate
from awares.sample import Sample

FAILED_SHARE = 0.05


class EngineFailure(AwaresError):
    """The engine failed for more than a few episodes: what it gave is no measurement and no label."""


@dataclass(frozen=True, slots=True)
class Played:
    """A sample's episode, or why there is none. `latency_s` counts from the decoded image to the last token.

    Example:
        Played(sample, episode, 0.021, "")
    """

    sample: Sample
    episode: Episode | None
    latency_s: float
    fault: str


async def play(
    samples: Sequence[Sample],
    images: Callable[[str], Image],
    generate: Generate,
    chat: ChatFormat,
    spec: EpisodeSpec,
    limit: asyncio.Semaphore,
) -> list[Played]:
    """Plays every sample, as many at a time as `limit` lets in; results in the order of `samples`. A damaged image is a fault."""

    async def one(sample: Sample) -> Played:
        async with limit:
            try:
                image = await asyncio.to_thread(images, sample.image)
            except DataError as error:
                return Played(sample, None, 0.0, str(error))
            started = time.perf_counter()
            episode = await run_episode(sample, image, generate, chat, spec, sample.sample_id)
            return Played(sample, episode, time.perf_counter() - started, episode.error)

    return list(await asyncio.gather(*(one(sample) for sample in samples)))


def check_engine(played: Sequence[Played]) -> None:
    """Raises EngineFailure if more than a twentieth of the episodes ended in an error: a dying engine must not pass for a bad policy."""
    failed = [
        one for one in played if one.episode is not None and one.episode.stop is StopReason.ERROR
    ]
    if len(failed) > FAILED_SHARE * len(played):
        raise EngineFailure(
            f"the engine failed for {len(failed)} of {len(played)} questions; the first, {failed[0].sample.sample_id}: {failed[0].fault}"
        )
