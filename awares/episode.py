"""An episode: low view -> answer, or low view -> crop request -> crops -> answer.

    sample, image --first_turn--> prompt ids + low view --generate--> sampled ids --parse_turn--> Answer ........ done
                                        |                                 |                  --> Malformed ..... done
                                        |                                 v
                                        +----- prompt ids + sampled ids + tool_reply ids <-- CropRequest
                                                            |  + crops, cut from the original image
                                                            +--generate--> ... until max_turns

Ids only ever grow: the prompt of turn 2 is the prompt of turn 1, what was sampled, and the tool's reply. One boundary (`run_episode`)
turns whatever goes wrong into an episode with StopReason.ERROR, so that its siblings live.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.crops import CropId
from awares.errors import PolicyError
from awares.generate import FinishReason, Generate, GenerateRequest, Generation, Sampling
from awares.images import render
from awares.protocol import Answer, CropRequest, Malformed, parse_turn
from awares.sample import Sample
from awares.tokens import VisionLimits, rtr_pixel, rtr_token, visual_tokens
from awares.view import View, crop_view, full_view, view_size


class StopReason(StrEnum):
    """How an episode ended."""

    ANSWER = "answer"
    MALFORMED = "malformed"  # a tool call that does not parse
    TURN_LIMIT = "turn_limit"  # asked for crops again where only an answer is possible
    LENGTH = "length"  # ran into the token limit
    ERROR = "error"  # the engine or the image failed; `Episode.error` says how


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn. `context_ids` were added before it (turn 1: the whole prompt; turn 2: the tool's reply); ids hold
    ONE image placeholder per view of `views` (the views that this context added). `sampled_ids`, `logprobs` and `versions` are aligned.

    Example:
        Turn((1, 9, 2), (View(None),), (17, 151645), (-0.1, 0.0), (3, 3), "7", (), StopReason.ANSWER)
    """

    context_ids: tuple[int, ...]
    views: tuple[View, ...]
    sampled_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    text: str
    crops: tuple[CropId, ...]
    stop: StopReason | None  # None: the episode went on


@dataclass(frozen=True, slots=True)
class Episode:
    """A finished episode: ids end to end, never pixels.

    `visual_tokens` counts each view once; `rtr_token` and `rtr_pixel` are relative to the full image. A token limit hit inside an
    answer keeps the cut answer, with StopReason.LENGTH; after any other failure `answer` is None.

    Example:
        Episode("mini/train/17", "9f2c...", (112, 112), (turn,), "7", StopReason.ANSWER, 4, 0.25, 0.25)
    """

    sample_id: str
    image: str
    image_size: tuple[int, int]  # width, height
    turns: tuple[Turn, ...]
    answer: str | None
    stop: StopReason
    visual_tokens: int
    rtr_token: float
    rtr_pixel: float
    error: str = ""

    @property
    def crops(self) -> tuple[CropId, ...]:
        """The crops asked for, empty for a direct answer."""
        return self.turns[0].crops if self.turns else ()


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """How episodes run.

    `view` "full" shows the whole image and allows an answer only; `reply` "all" answers any request with the whole image
    (VisionThink's protocol). `allow_all` false and `max_crops` narrow what a request may hold.

    Example:
        EpisodeSpec(VisionLimits(min_pixels=784), sampling=Sampling(temperature=1.0))
    """

    limits: VisionLimits
    low_ratio: float = 0.5
    max_turns: int = 2
    sampling: Sampling = Sampling()
    reply: Literal["crops", "all"] = "crops"
    view: Literal["low", "full"] = "low"
    allow_all: bool = True
    max_crops: int = len(CropId)


async def run_episode(
    sample: Sample,
    image: Image,
    generate: Generate,
    chat: ChatFormat,
    spec: EpisodeSpec,
    session: str,
) -> Episode:
    """Run one episode on the original `image` (RGB). Never raises for a bad rollout: the episode says how it stopped.

    `session` names the episode to the engine, the same for all its turns.
    """
    turns: list[Turn] = []
    try:
        await _play(turns, sample, image, generate, chat, spec, session)
    # The one boundary of style.md, rule 10: an engine or an image that fails costs this episode, not the group or the fleet.
    except Exception as error:
        return finish(
            sample,
            image.size,
            turns,
            None,
            StopReason.ERROR,
            spec,
            error=f"{type(error).__name__}: {error}",
        )
    last = turns[-1]
    assert last.stop is not None, "a played episode has stopped"
    kept = last.stop in (StopReason.ANSWER, StopReason.LENGTH) and isinstance(
        parse_turn(last.text), Answer
    )
    return finish(sample, image.size, turns, last.text if kept else None, last.stop, spec)


def finish(
    sample: Sample,
    size: tuple[int, int],
    turns: Sequence[Turn],
    answer: str | None,
    stop: StopReason,
    spec: EpisodeSpec,
    error: str = "",
) -> Episode:
    """The episode of `turns`, with its visual tokens and ratios counted."""
    sizes = [view_size(view, size, spec.low_ratio) for turn in turns for view in turn.views]
    return Episode(
        sample_id=sample.sample_id,
        image=sample.image,
        image_size=size,
        turns=tuple(turns),
        answer=answer,
        stop=stop,
        visual_tokens=sum(visual_tokens(view, spec.limits) for view in sizes),
        rtr_token=rtr_token(sizes, size, spec.limits),
        rtr_pixel=rtr_pixel(sizes, size),
        error=error,
    )


async def _play(
    turns: list[Turn],
    sample: Sample,
    image: Image,
    generate: Generate,
    chat: ChatFormat,
    spec: EpisodeSpec,
    session: str,
) -> None:
    """Append turns until one stops."""
    context = chat.first_turn(sample.question)
    views: tuple[View, ...] = (full_view(image.size) if spec.view == "full" else View(None),)
    ids: tuple[int, ...] = ()
    shown: tuple[Image, ...] = ()
    while not turns or turns[-1].stop is None:
        ids += context
        shown += tuple(render(image, view, spec.low_ratio) for view in views)
        generation = await generate(GenerateRequest(ids, shown, spec.sampling, session))
        _check(generation, chat)
        last_turn = spec.view == "full" or len(turns) + 1 >= spec.max_turns
        turn = _turn(context, views, generation, chat, spec, last_turn)
        turns.append(turn)
        ids += turn.sampled_ids
        views = _reply(turn.crops, image.size, spec)
        context = chat.tool_reply(len(views))


def _turn(
    context: tuple[int, ...],
    views: tuple[View, ...],
    generation: Generation,
    chat: ChatFormat,
    spec: EpisodeSpec,
    last_turn: bool,
) -> Turn:
    """Read a generation as a turn; `crops` is set only where they will be returned."""
    text = chat.decode(generation.token_ids).strip()
    parsed = parse_turn(text, allow_all=spec.allow_all, max_crops=spec.max_crops)
    crops: tuple[CropId, ...] = ()
    stop: StopReason | None = StopReason.ANSWER
    if generation.finish is FinishReason.LENGTH:
        stop = StopReason.LENGTH
    elif isinstance(parsed, Malformed):
        stop = StopReason.MALFORMED
    elif isinstance(parsed, CropRequest):
        stop, crops = (StopReason.TURN_LIMIT, ()) if last_turn else (None, parsed.crops)
    return Turn(
        context,
        views,
        generation.token_ids,
        generation.logprobs,
        generation.versions,
        text,
        crops,
        stop,
    )


def _reply(crops: Sequence[CropId], size: tuple[int, int], spec: EpisodeSpec) -> tuple[View, ...]:
    """The views that the tool returns for a request."""
    if spec.reply == "all" and crops:
        return (full_view(size),)
    return tuple(crop_view(crop, size) for crop in crops)


def _check(generation: Generation, chat: ChatFormat) -> None:
    """Refuse what would poison training: misaligned records, placeholders among the sampled ids, a stop without its token."""
    count = len(generation.token_ids)
    if count == 0 or count != len(generation.logprobs) or count != len(generation.versions):
        lengths = (
            f"{count} ids, {len(generation.logprobs)} logprobs, {len(generation.versions)} versions"
        )
        raise PolicyError(f"the engine returned {lengths}; each sampled id needs one of each")
    blocked = set(chat.blocked_ids).intersection(generation.token_ids)
    if blocked:
        raise PolicyError(
            f"the engine sampled the placeholder ids {sorted(blocked)}; mask ChatFormat.blocked_ids when sampling"
        )
    if generation.finish is FinishReason.STOP and generation.token_ids[-1] not in chat.stop_ids:
        raise PolicyError("the engine left out the stop token; a Generation includes it")
