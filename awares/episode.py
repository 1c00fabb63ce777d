"""An episode: the policy sees a first view and answers, or requests more views and then answers.

    sample, image --first_turn--> prompt ids + first view --generate--> sampled ids --parse--+
                                                                          ^                  |
                                                                          |     Answer ...... done
                                                                          |     Malformed ... done
                                                                          |     Request
                                                                          |        |
                  prompt ids + sampled ids + tool_reply ids + views ------+        |
                                                 ^--- cut from the original image -+

The environment parses the turns and chooses the views. Ids are only appended, never changed. The
prompt of turn 2 is the prompt of turn 1, then the sampled ids, then the tool's reply. The tool's
reply is the user message that contains the requested views. After any failure `run_episode` returns
an episode with StopReason.ERROR, so the other episodes of the group go on.

An engine may be interrupted before an episode ends. The episode then has StopReason.UNFINISHED, and
its last turn has the ids that were sampled by then. Another call of `run_episode` continues it.
"""

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.environment import Answer, Malformed, Parsed, Request
from awares.episode_spec import EpisodeSpec, grant
from awares.errors import PolicyError
from awares.gallery import Gallery
from awares.generate import FinishReason, Generate, GenerateRequest, Generation
from awares.packed import Packable, PackedTokens, PackedTurns
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
class Turn(Packable[PackedTokens]):
    """One assistant turn.

    Example:
        Turn((1, 9, 2), (View(),), (17, 151645), (-0.1, 0.0), (3, 3), "7", (), StopReason.ANSWER)
    """

    context_ids: tuple[int, ...]
    """The ids before the sampled ids: the prompt in turn 1, the reply with views in a later turn.

    They hold ONE image placeholder for each view.
    """
    views: tuple[View, ...]
    """The views that this turn adds to the sequence."""
    sampled_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The logprob of each sampled id under the policy that sampled it."""
    versions: tuple[int, ...]
    """The version of the policy that sampled each id."""
    text: str
    """The decoded text of the sampled ids."""
    crops: tuple[str, ...]
    """The regions of a granted request."""
    stop: StopReason | None
    """How the turn ended the episode, or None if the episode went on."""
    area: float = 0.0
    """The cost of the granted request, as a share of the image's area."""
    cut: bool = False
    """Whether the token limit ended the text. The GRPO job's journal does not store this field."""

    PACKED = "context_ids", "sampled_ids", "logprobs", "versions"

    def pack(self) -> PackedTokens:
        return PackedTokens.of(self.context_ids, self.sampled_ids, self.logprobs, self.versions)

    def unpack(self, name: str) -> tuple[int, ...] | tuple[float, ...]:
        return self.packed.unpacked(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode(Packable[PackedTurns]):
    """An episode. It holds token ids and descriptions of views, but no pixels.

    Example:
        Episode(
            sample_id="mini/train/17", image="9f2c...", image_size=(112, 112), turns=(turn,),
            answer="7", stop=StopReason.ANSWER, visual_tokens=4, rtr_token=0.25, rtr_pixel=0.25,
        )
    """

    sample_id: str
    image: str
    """The hash of the image file."""
    image_size: tuple[int, int]
    """The width and height of the image, in pixels."""
    turns: tuple[Turn, ...]
    answer: str | None
    """The answer, or None without one. If `stop` is LENGTH, the end of the answer is missing."""
    stop: StopReason
    visual_tokens: int
    """The number of visual tokens of all views."""
    rtr_token: float
    """`visual_tokens`, divided by the number of visual tokens of the full image."""
    rtr_pixel: float
    """The number of pixels of all views, divided by that of the full image."""
    error: str = ""
    """Describes the failure if `stop` is ERROR."""

    PACKED = ("turns",)

    def pack(self) -> PackedTurns:
        tokens = Counter[int]()
        for turn in self.turns:
            for version, count in turn.packed.runs:
                tokens[version] += count
        finite = all(turn.packed.finite for turn in self.turns)
        data = pickle.dumps(self.turns, pickle.HIGHEST_PROTOCOL)
        return PackedTurns(data, len(self.turns), tuple(tokens.items()), finite)

    def unpack(self, name: str) -> tuple[Turn, ...]:
        return pickle.loads(self.packed.data)

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

    - `image` may be a Gallery, which renders each view once for several episodes.
    - `session` is a name of the episode, which the engine gets with every turn.
    - `begun` is an unfinished episode of `sample`, which the function continues. `spec` must then
      be the one with which the episode began. This `spec` must have no grammar and no seed.

    A failure raises no exception: the returned episode then has StopReason.ERROR.
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

    The prompt and the token limit of `request` are those of the whole turn.
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

    A request that the budget does not allow becomes Malformed. Only a granted request gets views.
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
    # A request at the token limit is MALFORMED and not LENGTH, because the reward charges
    # `malformed_cost` only for MALFORMED.
    if cut or isinstance(parsed, Malformed):
        return StopReason.MALFORMED
    return StopReason.TURN_LIMIT if last_turn else None


def _check(generation: Generation, chat: ChatFormat) -> None:
    """Raise PolicyError for a generation that would spoil training.

    Each id needs a logprob and a version, no id may be blocked, and a finished turn must end with a
    stop token. Only an interrupted generation may be empty.
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
