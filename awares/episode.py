"""An episode: the policy sees a first view and answers, or requests more views and then answers.

    sample, image --first_turn--> prompt ids + first view --generate--> sampled ids --parse--+
                                                                          ^                  |
                                                                          |     Answer ...... done
                                                                          |     Malformed ... done
                                                                          |     Request
                                                                          |        |
                  prompt ids + sampled ids + tool_reply ids + views ------+        |
                                                 ^--- cut from the original image -+

The environment parses the turns and chooses the views. Ids are only appended, never changed: the
prompt of turn 2 consists of the prompt of turn 1, the sampled ids and the tool's reply. The tool's
reply is a user message with the requested views. After any failure, `run_episode` returns an
episode with StopReason.ERROR, so the other episodes of the group go on.

An engine may be interrupted before an episode ends. The episode then has StopReason.UNFINISHED, and
its last turn has the ids that were sampled by then. Another call of `run_episode` continues it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL.Image import Image

from awares.carried import Carried
from awares.chat import ChatFormat
from awares.environment import Answer, Malformed, Parsed, Request
from awares.episode_spec import EpisodeSpec, grant
from awares.errors import PolicyError
from awares.gallery import Gallery
from awares.generate import FinishReason, Generate, GenerateRequest, Generation
from awares.sample import Sample
from awares.tokens import Size, rtr_pixel, rtr_token, visual_tokens
from awares.view import View, view_size


class StopReason(StrEnum):
    """How an episode ended."""

    ANSWER = "answer"
    # The turn attempts a request, but the request cannot be parsed, exceeds the budget, or reaches
    # the token limit.
    MALFORMED = "malformed"
    # The last turn is a request, but only an answer was allowed.
    TURN_LIMIT = "turn_limit"
    # The answer reached the token limit.
    LENGTH = "length"
    # The engine, the image or the environment failed; `Episode.error` names the failure.
    ERROR = "error"
    # The engine was interrupted. The last turn may lack tokens, and may even have none.
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Turn(Carried):
    """One assistant turn.

    `context_ids` are the ids before the sampled ids: the whole prompt in turn 1, the tool's reply
    in a later turn. They hold ONE image placeholder for each of the `views` that this turn adds.
    Each sampled token has one entry in each of these three fields:

    - `sampled_ids`: its id;
    - `logprobs`: its logprob under the policy that sampled it;
    - `versions`: the version of this policy.

    `text` is the decoded text of the sampled ids. `cut` says whether the token limit ended this
    text; the journal of the GRPO job does not store `cut`. `crops` are the regions of a granted
    request, and `area` is their cost as a share of the image's area. `stop` says how the turn ended
    the episode, or is None if the episode went on.

    Example:
        Turn((1, 9, 2), (View(),), (17, 151645), (-0.1, 0.0), (3, 3), "7", (), StopReason.ANSWER)
    """

    context_ids: tuple[int, ...]
    views: tuple[View, ...]
    sampled_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    text: str
    crops: tuple[str, ...]
    stop: StopReason | None
    area: float = 0.0
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode(Carried):
    """An episode. It holds token ids and descriptions of views, but no pixels.

    `image` is the hash of the image file, and `image_size` is the image's width and height.
    `visual_tokens` counts the visual tokens of all views. `rtr_token` is this number divided by the
    visual tokens of the full image, and `rtr_pixel` is the same ratio for pixels.

    If an answer reaches the token limit, `answer` holds the part before the limit, and `stop` is
    LENGTH. Without an answer, `answer` is None. If `stop` is ERROR, `error` describes the failure.

    Example:
        Episode(
            sample_id="mini/train/17", image="9f2c...", image_size=(112, 112), turns=(turn,),
            answer="7", stop=StopReason.ANSWER, visual_tokens=4, rtr_token=0.25, rtr_pixel=0.25,
        )
    """

    sample_id: str
    image: str
    image_size: tuple[int, int]
    turns: tuple[Turn, ...]
    answer: str | None
    stop: StopReason
    visual_tokens: int
    rtr_token: float
    rtr_pixel: float
    error: str = ""

    @property
    def crops(self) -> tuple[str, ...]:
        """The regions of all granted requests, in order. Empty if no request was granted."""
        return tuple(region for turn in self.turns for region in turn.crops)

    @property
    def area(self) -> float:
        """The cost of all granted requests, as a share of the image's area."""
        return sum(turn.area for turn in self.turns)


async def run_episode(
    sample: Sample,
    image: Image | Gallery,
    generate: Generate,
    chat: ChatFormat,
    spec: EpisodeSpec,
    session: str,
    begun: Episode | None = None,
) -> Episode:
    """Run one episode on the original `image` (RGB).

    To run several episodes on one image, pass the same Gallery as `image`; it renders each view
    once. A failure raises no exception: the returned episode then has StopReason.ERROR. The engine
    gets `session` with every turn, so that the engine can recognise the turns of one episode.

    If `begun` is an unfinished episode of `sample`, the function continues it. All sampled ids keep
    their logprobs and versions. The ids of an unfinished turn become a part of the engine's prompt.
    `spec` must be the same as before, and must have no grammar and no seed.
    """
    turns = list(begun.turns) if begun else []
    gallery = image if isinstance(image, Gallery) else Gallery(image)
    size = gallery.image.size
    try:
        answer = await _play(turns, sample, gallery, generate, chat, spec, session)
    # A failure, for example of the engine, ends only this episode. The group and the job go on.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return finish(sample, size, turns, None, StopReason.ERROR, spec, error=reason)
    stop = turns[-1].stop
    assert stop is not None, "a played episode has stopped"
    return finish(sample, size, turns, answer, stop, spec)


def finish(
    sample: Sample,
    size: tuple[int, int],
    turns: Sequence[Turn],
    answer: str | None,
    stop: StopReason,
    spec: EpisodeSpec,
    error: str = "",
) -> Episode:
    """Return the episode of these turns, with its visual tokens and its retained token ratios."""
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
    gallery: Gallery,
    generate: Generate,
    chat: ChatFormat,
    spec: EpisodeSpec,
    session: str,
) -> str | None:
    """Append turns until the episode ends or is interrupted. Return the answer, or None.

    If `turns` is not empty, its last turn is unfinished, and the function continues this turn.
    """
    size = gallery.image.size
    if not turns:
        turns.append(_begin(chat.first_turn(sample.question), (spec.first_view(size),)))
    turn = turns.pop()
    ids = tuple(token for one in turns for token in (*one.context_ids, *one.sampled_ids))
    seen = tuple(view for one in turns for view in one.views)
    shown = await gallery.show(seen, spec.low_ratio)
    while True:
        ids += turn.context_ids
        seen += turn.views
        shown += await gallery.show(turn.views, spec.low_ratio)
        request = GenerateRequest(ids, shown, spec.sampling, session)
        turn, finish = await _sample(turn, request, generate, chat)
        if finish is FinishReason.INTERRUPTED:
            turns.append(turn)
            return None
        last_turn = len(turns) + 1 >= spec.environment.max_turns
        parsed, granted = _read(turn.text, seen, size, spec, last_turn)
        stop = _stop(parsed, finish, last_turn)
        asked = parsed if isinstance(parsed, Request) and stop is None else None
        crops, area = (asked.regions, spec.environment.cost(asked, size)) if asked else ((), 0.0)
        turns.append(replace(turn, crops=crops, stop=stop, area=area))
        if asked is None:
            return turn.text if isinstance(parsed, Answer) else None
        ids += turn.sampled_ids
        turn = _begin(chat.tool_reply(len(granted)), granted)


def _begin(context_ids: tuple[int, ...], views: tuple[View, ...]) -> Turn:
    """Return an unfinished turn without sampled ids."""
    return Turn(
        context_ids=context_ids,
        views=views,
        sampled_ids=(),
        logprobs=(),
        versions=(),
        text="",
        crops=(),
        stop=StopReason.UNFINISHED,
    )


async def _sample(
    turn: Turn, request: GenerateRequest, generate: Generate, chat: ChatFormat
) -> tuple[Turn, FinishReason]:
    """Sample the rest of an unfinished turn. Return the turn and the reason why sampling ended.

    The prompt of `request` ends before the turn's sampled ids. The token limit of `request` is the
    limit of the whole turn, including the ids that are already sampled.
    """
    if count := len(turn.sampled_ids):
        left = replace(request.sampling, max_tokens=request.sampling.max_tokens - count)
        ids = request.token_ids + turn.sampled_ids
        request = replace(request, token_ids=ids, sampling=left)
    generation = await generate(request)
    _check(generation, chat)
    sampled_ids = turn.sampled_ids + generation.token_ids
    turn = replace(
        turn,
        sampled_ids=sampled_ids,
        logprobs=turn.logprobs + generation.logprobs,
        versions=turn.versions + generation.versions,
        text=chat.decode(sampled_ids).strip(),
        cut=generation.finish is FinishReason.LENGTH,
    )
    return turn, generation.finish


def _read(
    text: str, seen: Sequence[View], size: Size, spec: EpisodeSpec, last_turn: bool
) -> tuple[Parsed, tuple[View, ...]]:
    """Return the parsed turn, and the views that answer its request.

    If the budget does not allow the request, the parsed turn is Malformed. An answer, a malformed
    turn and a request in the last turn get no views.
    """
    parsed = spec.environment.parse(text)
    if not isinstance(parsed, Request) or last_turn:
        return parsed, ()
    granted = grant(spec, parsed, seen, size)
    return (granted, ()) if isinstance(granted, Malformed) else granted


def _stop(parsed: Parsed, finish: FinishReason, last_turn: bool) -> StopReason | None:
    """Return how a turn ends the episode, or None if the turn is a request that is granted."""
    cut = finish is FinishReason.LENGTH
    if isinstance(parsed, Answer):
        return StopReason.LENGTH if cut else StopReason.ANSWER
    # A request at the token limit is MALFORMED and not LENGTH, because the reward charges no
    # malformed_cost for LENGTH.
    if cut or isinstance(parsed, Malformed):
        return StopReason.MALFORMED
    return StopReason.TURN_LIMIT if last_turn else None


def _check(generation: Generation, chat: ChatFormat) -> None:
    """Raise PolicyError for a generation that would spoil training.

    Such a generation has fields of unequal lengths, contains blocked ids, or has FinishReason.STOP
    without a stop token at its end. An empty generation spoils training unless it is interrupted.
    """
    count, interrupted = len(generation.token_ids), generation.finish is FinishReason.INTERRUPTED
    empty = count == 0 and not interrupted
    if empty or count != len(generation.logprobs) or count != len(generation.versions):
        lengths = (
            f"{count} ids, {len(generation.logprobs)} logprobs, {len(generation.versions)} versions"
        )
        raise PolicyError(f"the engine returned {lengths}; each sampled id needs one of each")
    blocked = set(chat.blocked_ids).intersection(generation.token_ids)
    if blocked:
        raise PolicyError(
            f"the engine sampled the placeholder ids {sorted(blocked)}; "
            "mask ChatFormat.blocked_ids when sampling"
        )
    if generation.finish is FinishReason.STOP and generation.token_ids[-1] not in chat.stop_ids:
        raise PolicyError("the engine left out the stop token; a Generation includes it")
