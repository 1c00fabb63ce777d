"""Defines the interface of an engine, which samples the turns of a policy.

An engine takes token ids and images, and returns sampled token ids. For each sampled id, the engine
also returns a logprob and a version. The version is the number of the weights that sampled the id.
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

    `max_tokens` is the largest number of tokens that one turn may sample. `min_tokens` is the
    smallest number. The ids in `blocked_ids` are never sampled. If `grammar` is not None, the
    sampled text obeys this grammar in EBNF.

    Example:
        Sampling(temperature=1.0, top_p=1.0, max_tokens=32, seed=7)
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int | None = None
    min_tokens: int = 0
    blocked_ids: tuple[int, ...] = ()
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A prompt and its sampling settings.

    `token_ids` contains ONE placeholder for each image. `images` are in the order of these
    placeholders. All turns of an episode have the same `session`. An engine can therefore route
    each turn to the replica whose cache holds the earlier turns.

    Example:
        GenerateRequest((151644, ...), (low_view,), Sampling(), session="ep-17")
    """

    token_ids: tuple[int, ...]
    images: tuple[Image, ...]
    sampling: Sampling
    session: str


@dataclass(frozen=True, slots=True)
class Generation:
    """Sampled ids, including the stop token, with the logprob and weight version of each id.

    Only an interrupted generation may have no ids. The logprobs come from the behaviour policy,
    which sampled the ids. `cached` counts the prompt's tokens that the engine did not compute,
    because an earlier prompt began with the same tokens.

    Example:
        Generation((17, 151645), (-0.1, -0.02), (3, 3), FinishReason.STOP)
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    finish: FinishReason
    cached: int = 0


class Generate(Protocol):
    """An asynchronous engine. A call raises an error only if the engine fails."""

    async def __call__(self, request: GenerateRequest) -> Generation: ...
