"""Plays one conversation with the policy until it has an answer.

    prompt + first views --sample--> Answer ---------------------------------------> answer
                 ^                   Request ---- views ---+                           ^
                 |                   unreadable or empty   |                           |
                 |                     1. ask once more ---+                           |
                 |                     2. show the whole image ---- sample ------------+
                 |                     3. sample again with requests blocked ----------+
                 +------ views --------+

`TalkResult.recoveries` names each problem on the way to the answer by a constant such as LENIENT.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.environment import Answer, Parsed, Request, lenient_parser, readable
from awares.episode_spec import EpisodeSpec
from awares.gallery import Gallery
from awares.generate import FinishReason, Generate, GenerateRequest, Generation, Sampling
from awares_platform.serve.allotment import ShownView, allot

NO_ANSWER = "The policy found no answer to this question."
"""The text of the answer if the policy gives none, even while requests for crops are blocked."""

LENIENT = "lenient"
"""The request did not have the format of the training data, but its meaning was clear."""
AGAIN = "asked_again"
"""The policy's turn was empty or unreadable, so the policy was asked once more."""
WHOLE = "whole_image"
"""The policy's turn was empty or unreadable, and asking once more had failed or was impossible.
The policy therefore saw the whole image."""
PLAIN = "request_ruled_out"
"""The last turn was a request or empty, so it was sampled again, with requests blocked."""
NONE = "no_answer"
"""The policy gave no answer at all. The answer is then the sentence `NO_ANSWER`."""
NO_ROOM = "no_room"
"""No requested region fitted the budget, so the policy answered from the views that it had."""
FEWER = "fewer_crops"
"""Only a part of the requested regions fitted the budget."""
SMALLER = "smaller_crops"
"""The requested regions were shown at a lower resolution, so that they fitted the budget."""

Tell = Callable[[tuple[ShownView, ...]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The input of one conversation, and the limits on the conversation and its answer.

    Example:
        Task(
            prompt=prompt_ids, galleries=(Gallery(image),), first=first, asks=True, crops=5,
            tokens=4096, context=8192, sampling=Sampling(), answer_tokens=64, grammar=None,
            session="chat-1",
        )
    """

    prompt: tuple[int, ...]
    """Token ids, with one placeholder for each view in `first`."""
    galleries: tuple[Gallery, ...]
    """The images."""
    first: tuple[ShownView, ...]
    """The first views."""
    asks: bool
    """If false, the policy must answer without requests for crops."""
    crops: int
    """Largest number of views, including the first views."""
    tokens: int
    """Largest number of visual tokens, including the first views."""
    context: int
    """Largest number of tokens of the whole conversation."""
    sampling: Sampling
    answer_tokens: int
    grammar: str | None
    session: str


@dataclass(slots=True, kw_only=True)
class TalkResult:
    """The outcome of a conversation.

    Example:
        TalkResult(text="7", ids=(17, 151645), version=3, rounds=1, sampled=2, prompt=61)
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    """Token ids of the answer."""
    logprobs: tuple[float, ...] = ()
    """Log-probabilities of the answer's tokens."""
    cut: bool = False
    """Whether a token limit ended the answer."""
    shown: tuple[ShownView, ...] = ()
    """All views that the policy saw."""
    regions: tuple[str, ...] = ()
    """Regions of all granted requests."""
    rounds: int = 0
    """Number of calls of the engine."""
    sampled: int = 0
    """Number of sampled tokens of all rounds."""
    prompt: int = 0
    """Number of tokens of the last prompt, without the policy's earlier turns.

    A view counts as its visual tokens.
    """
    cached: int = 0
    """How many tokens of `prompt` the engine took from its cache."""
    prompted: int = 0
    """Number of tokens of the prompts of all rounds, with the policy's earlier turns."""
    reused: int = 0
    """How many tokens of `prompted` the engine took from its cache."""
    version: int = 0
    """Weight version of the last token."""
    recoveries: list[str] = field(default_factory=list)
    """Problems on the way to the answer, named by constants such as LENIENT."""
    engine_s: float = 0.0
    """Seconds that the engine took."""
    render_s: float = 0.0
    """Seconds for rendering views."""


class Talk:
    """One conversation in progress.

    As soon as `play` has chosen the views that answer a request, it passes these views to `tell`.

    Example:
        played = await Talk(engine, chat, spec, task, tell).play()
    """

    def __init__(
        self, generate: Generate, chat: ChatFormat, spec: EpisodeSpec, task: Task, tell: Tell
    ) -> None:
        self._generate, self._chat, self._spec, self._task = generate, chat, spec, task
        self._tell, self._parse = tell, lenient_parser(spec.environment)
        self._sizes = [gallery.image.size for gallery in task.galleries]
        self._ids: tuple[int, ...] = task.prompt
        self._replies = 0
        self._images: tuple[Image, ...] = ()
        self._played = TalkResult()

    async def play(self) -> TalkResult:
        """Play the conversation. Raises EngineError if the engine fails."""
        await self._show(self._task.first)
        requests = self._spec.environment.max_turns - 1 if self._task.asks else 0
        again = True
        while requests > 0:
            generation = await self._sample(self._task.sampling)
            parsed, text = self._read(generation)
            if isinstance(parsed, Answer) and parsed.text:
                return await self._answered(generation, parsed.text)
            if isinstance(parsed, Request):
                requests -= 1
                if not await self._grant(parsed, generation, text):
                    break
            elif again and self._ask_again(generation):
                again = False
            else:
                await self._show_whole()
                break
        return await self._finish()

    async def _answered(self, generation: Generation, text: str) -> TalkResult:
        """Return the answer. If it must obey a grammar, sample it again with the grammar."""
        if self._task.grammar is not None:
            return await self._finish()
        return self._accept(generation, text)

    async def _finish(self) -> TalkResult:
        """Sample the answer from the views so far.

        If the turn is a request or empty, sample it again, with requests blocked.
        """
        grammar = self._task.grammar
        sampling = replace(self._task.sampling, grammar=grammar)
        if grammar is not None:
            sampling = replace(sampling, max_tokens=self._task.answer_tokens)
        plain = replace(sampling, blocked_ids=self._request_ids(), min_tokens=1)
        for attempt in (sampling, plain):
            generation = await self._sample(attempt)
            parsed, _ = self._read(generation)
            if isinstance(parsed, Answer) and parsed.text:
                return self._accept(generation, parsed.text)
            if attempt is sampling:
                self._played.recoveries.append(PLAIN)
        self._played.recoveries.append(NONE)
        self._played.text = NO_ANSWER
        return self._played

    def _accept(self, generation: Generation, text: str) -> TalkResult:
        """Keep the answer, and cut it at the token limit that the client has set."""
        played, most = self._played, self._task.answer_tokens
        ids = generation.token_ids
        length = len(ids) - (ids[-1] in self._chat.stop_ids)
        played.cut = length > most or generation.finish is FinishReason.LENGTH
        if length > most:
            ids = ids[:most]
            text = self._chat.decode(ids).strip()
        played.text, played.ids, played.logprobs = text, ids, generation.logprobs[: len(ids)]
        return played

    async def _sample(self, sampling: Sampling) -> Generation:
        started = time.perf_counter()
        generation = await self._generate(
            GenerateRequest(self._ids, self._images, sampling, self._task.session)
        )
        played = self._played
        played.engine_s += time.perf_counter() - started
        played.rounds += 1
        played.sampled += len(generation.token_ids)
        if generation.versions:
            played.version = generation.versions[-1]
        played.prompt = self._length() - self._replies
        played.cached = min(generation.cached, played.prompt)
        played.prompted += self._length()
        played.reused += generation.cached
        return generation

    def _read(self, generation: Generation) -> tuple[Parsed, str]:
        text = self._chat.decode(generation.token_ids).strip()
        return self._parse(text), text

    def _length(self) -> int:
        """Return the length of the sequence in tokens. A view counts as its visual tokens."""
        shown = self._played.shown
        return len(self._ids) - len(shown) + sum(one.tokens for one in shown)

    async def _show(self, views: Sequence[ShownView]) -> None:
        """Render `views`. Their placeholders are already in `_ids`."""
        started = time.perf_counter()
        for one in views:
            gallery = self._task.galleries[one.image]
            self._images += await gallery.show((one.view,), self._spec.low_ratio)
        self._played.shown += tuple(views)
        self._played.render_s += time.perf_counter() - started

    async def _grant(self, request: Request, generation: Generation, text: str) -> bool:
        """Append the request and its views. Return False if no view fits the budget."""
        # Rewrite a request that does not have the format of the training data.
        canonical = request.canonical or self._spec.environment.parse(text) == request
        turn = self._chat.ended(generation.token_ids)
        if not canonical:
            turn = self._chat.target(self._spec.environment.write(request))
            self._played.recoveries.append(LENIENT)
        views = allot(
            self._spec, request, self._sizes, self._crops_left(), self._tokens_left(len(turn))
        )
        if not views:
            self._played.recoveries.append(NO_ROOM)
            return False
        self._played.recoveries += self._reductions(request, views)
        await self._append(turn, views)
        return True

    async def _append(self, turn: tuple[int, ...], views: tuple[ShownView, ...]) -> None:
        """Append the token ids of a request and of the reply, which shows `views`."""
        self._ids += (*turn, *self._chat.tool_reply(len(views)))
        self._replies += len(turn)
        names = dict.fromkeys(one.region for one in views if one.region is not None)
        self._played.regions += tuple(names)
        await self._tell(views)
        await self._show(views)

    def _ask_again(self, generation: Generation) -> bool:
        """Append the unreadable turn and a message about it. Return False if there is no room."""
        example = self._spec.environment.write(Request(self._spec.environment.regions[:1]))
        message = f"This request cannot be read. Write one line such as {example}, or the answer."
        turn = self._chat.ended(generation.token_ids)
        added = (*turn, *self._chat.follow_up(message))
        room = self._task.context - self._length() - self._task.sampling.max_tokens
        if len(added) > room:
            return False
        self._ids += added
        self._replies += len(turn)
        self._played.recoveries.append(AGAIN)
        return True

    async def _show_whole(self) -> bool:
        """Show the whole image, as if the policy had asked for it.

        Return False if no request shows the whole image, or if its smallest view does not fit.
        """
        request = self._whole()
        if request is None:
            return False
        turn = self._chat.target(self._spec.environment.write(request))
        views = allot(
            self._spec, request, self._sizes, self._crops_left(), self._tokens_left(len(turn))
        )
        if not views:
            return False
        self._played.recoveries.append(WHOLE)
        await self._append(turn, views)
        return True

    def _whole(self) -> Request | None:
        """Return a request whose only view is the whole image, or None if none exists."""
        environment, size = self._spec.environment, self._sizes[0]
        for region in environment.regions:
            request = readable(environment, (region,))
            if request and [v.box for v in environment.views(request, size)] == [(0, 0, *size)]:
                return request
        return None

    def _crops_left(self) -> int:
        return self._task.crops - len(self._played.shown)

    def _tokens_left(self, turn: int) -> int:
        """Return how many visual tokens are left for views after a turn of `turn` tokens."""
        shown = sum(one.tokens for one in self._played.shown)
        empty, one = len(self._chat.tool_reply(0)), len(self._chat.tool_reply(1))
        reply = empty + self._crops_left() * (one - empty - 1)
        room = self._task.context - self._length() - turn - reply - self._task.sampling.max_tokens
        return min(self._task.tokens - shown, room)

    def _reductions(self, request: Request, views: Sequence[ShownView]) -> list[str]:
        """Return FEWER if `views` lack a requested region, and SMALLER if they have shrunk."""
        names = {name for one in views for name in (one.region or "").split(", ")}
        asked = {
            v.scale for size in self._sizes for v in self._spec.environment.views(request, size)
        }
        found = [] if {*request.regions} <= names else [FEWER]
        return found + ([] if {one.view.scale for one in views} <= asked else [SMALLER])

    def _request_ids(self) -> tuple[int, ...]:
        """Return the token ids with which a request may begin."""
        text = self._spec.environment.write(Request(self._spec.environment.regions[:1]))
        first = {self._chat.encode(lead + text)[0] for lead in ("", " ")}
        # Some tokenizers encode the leading space as its own token. Leave this token out, because
        # the caller blocks the returned tokens, and answers contain spaces.
        return tuple(token for token in first if self._chat.decode((token,)).strip())
