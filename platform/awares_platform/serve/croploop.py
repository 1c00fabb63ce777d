"""Answers a question about an encoded image with one episode, for the endpoint.

This module needs neither HTTP nor Ray.
"""

import asyncio
import hashlib
import time
import uuid
from dataclasses import dataclass, replace

from awares.chat import ChatFormat
from awares.crops import Box
from awares.episode import Episode, run_episode
from awares.episode_spec import EpisodeSpec, check_room
from awares.generate import Generate, Sampling
from awares.images import DecodeLimits, decode
from awares.sample import Sample


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """A finished episode with its token counts.

    `boxes` are the regions that the policy saw as crops, in pixels of the image. `prompt_tokens`
    counts the text and visual tokens of all turns. A token that several turns share counts once.
    `completion_tokens` counts the sampled tokens. `version` is the weight version that sampled the
    last token. `latency_s` is the number of seconds that the crop loop took.

    Example:
        ServedAnswer(
            episode, boxes=((0, 0, 112, 112),), prompt_tokens=61, completion_tokens=14, version=3,
            latency_s=0.21,
        )
    """

    episode: Episode
    boxes: tuple[Box, ...]
    prompt_tokens: int
    completion_tokens: int
    version: int
    latency_s: float


class CropLoop:
    """Answers questions with an implementation of `Generate`, such as the engine."""

    def __init__(
        self,
        generate: Generate,
        chat: ChatFormat,
        spec: EpisodeSpec,
        limits: DecodeLimits,
    ):
        self._generate, self._chat, self._spec = generate, chat, spec
        self._limits = limits

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of the regions for which the metrics have separate counts."""
        return self._spec.environment.regions

    async def __call__(self, data: bytes, question: str, sampling: Sampling) -> ServedAnswer:
        """Run one episode and return it, even if it ends without an answer.

        Raises DataError for an unreadable image and for a question that is too long.
        """
        started = time.perf_counter()
        image = await asyncio.to_thread(decode, data, self._limits)
        session = uuid.uuid4().hex
        sample = Sample(session, hashlib.sha256(data).hexdigest(), question, answer="")
        spec = replace(self._spec, sampling=sampling)
        check_room(spec, question, image.size, self._chat)
        episode = await run_episode(sample, image, self._generate, self._chat, spec, session)
        return count_tokens(episode, time.perf_counter() - started)


def count_tokens(episode: Episode, latency_s: float) -> ServedAnswer:
    """Count an episode's tokens.

    The token ids of a turn hold one placeholder per view. `prompt_tokens` counts the view's visual
    tokens instead of this placeholder.
    """
    views = [view for turn in episode.turns for view in turn.views]
    context = sum(len(turn.context_ids) for turn in episode.turns)
    versions = [version for turn in episode.turns for version in turn.versions]
    return ServedAnswer(
        episode=episode,
        boxes=tuple(view.box for view in views if view.box is not None),
        prompt_tokens=context - len(views) + episode.visual_tokens,
        completion_tokens=sum(len(turn.sampled_ids) for turn in episode.turns),
        version=versions[-1] if versions else 0,
        latency_s=latency_s,
    )
