"""The engine as the method sees it: token ids in; token ids, logprobs and weight versions out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from PIL.Image import Image


class FinishReason(StrEnum):
    """Why sampling ended: at a stop token, or at the token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. `temperature` 0 is greedy.

    Example:
        Sampling(temperature=1.0, top_p=1.0, max_tokens=32, seed=7)
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A prompt: ids with ONE image placeholder per image, the images in the same order, and a session that lets an
    engine route the turns of one episode to the replica that holds their prefix.

    Example:
        GenerateRequest((151644, ...), (low_view,), Sampling(), session="ep-17")
    """

    token_ids: tuple[int, ...]
    images: tuple[Image, ...]
    sampling: Sampling
    session: str


@dataclass(frozen=True, slots=True)
class Generation:
    """Sampled ids (the stop token included), and per id its behaviour logprob and the weight version that sampled it.

    Example:
        Generation((17, 151645), (-0.1, -0.02), (3, 3), FinishReason.STOP)
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    finish: FinishReason


class Generate(Protocol):
    """An asynchronous engine. Raises only for failures of the engine itself, never for what the policy says."""

    async def __call__(self, request: GenerateRequest) -> Generation: ...
