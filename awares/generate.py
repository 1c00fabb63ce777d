"""Defines the interface of an engine, which samples the turns of a policy.

An engine takes token ids and images. It returns sampled ids, each with a logprob and the version of
the weights that sampled it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from PIL.Image import Image


class FinishReason(StrEnum):
    """The reason why sampling ended."""

    # The last token is a stop token.
    STOP = "stop"
    # The turn has reached the token limit.
    LENGTH = "length"
    # The engine was told to stop before the turn ended. Another engine can sample the rest.
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. A `temperature` of 0 is greedy sampling.

    Example:
        Sampling(temperature=1.0, top_p=1.0, max_tokens=32, seed=7)
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 64
    """The largest number of tokens that one turn may sample."""
    seed: int | None = None
    min_tokens: int = 0
    """The smallest number of tokens that one turn samples."""
    blocked_ids: tuple[int, ...] = ()
    """The ids that are never sampled."""
    grammar: str | None = None
    """A grammar in EBNF that the sampled text obeys, or None."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A prompt and its sampling settings.

    Example:
        GenerateRequest((151644, ...), (low_view,), Sampling(), session="ep-17")
    """

    token_ids: tuple[int, ...]
    """The ids of the prompt, with ONE placeholder for each image."""
    images: tuple[Image, ...]
    """The images in the order of their placeholders."""
    sampling: Sampling
    session: str
    """A name of the episode. An engine can send all turns of an episode to the same replica, whose
    cache holds the earlier turns.
    """


@dataclass(frozen=True, slots=True)
class Generation:
    """Sampled ids, including the stop token, with the logprob and weight version of each id.

    Only an interrupted generation may have no ids.

    Example:
        Generation((17, 151645), (-0.1, -0.02), (3, 3), FinishReason.STOP)
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The logprob of each id under the policy that sampled it."""
    versions: tuple[int, ...]
    finish: FinishReason
    cached: int = 0
    """The number of prompt tokens that the engine did not compute, but took from its cache."""


class Generate(Protocol):
    """An asynchronous engine. A call raises an error only if the engine fails."""

    async def __call__(self, request: GenerateRequest) -> Generation: ...
