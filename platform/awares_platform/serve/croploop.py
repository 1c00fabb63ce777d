"""Answers a question about encoded images, without HTTP and Ray.

`prepare` decodes the images and chooses the first views. `play` plays one conversation per choice
(talk.py).
"""

import asyncio
import io
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from PIL.Image import Image

from awares.budget import Budget
from awares.chat import ChatFormat
from awares.episode_spec import EpisodeSpec
from awares.errors import TooLong
from awares.gallery import Gallery
from awares.generate import Generate
from awares.images import DecodeLimits
from awares.tokens import Size, rtr_pixel, visual_tokens
from awares.view import view_size
from awares_platform.serve.admission import Admission
from awares_platform.serve.allotment import ShownView, first_views
from awares_platform.serve.errors import RequestError
from awares_platform.serve.openai import ChatQuestion
from awares_platform.serve.shelf import ImageFile, Shelf
from awares_platform.serve.talk import Talk, TalkResult, Task, Tell

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """One of the answers to a request (a choice in OpenAI's API), with its token counts.

    Example:
        ServedAnswer(
            played=played, text="7", finish="stop", sizes=((112, 112),), full_tokens=16,
            rtr_pixel=0.25, decode_s=0.01, total_s=0.21, notes=(),
        )
    """

    played: TalkResult
    """Outcome of the conversation."""
    text: str
    """The answer, up to the first stop string."""
    finish: str
    """OpenAI's finish_reason."""
    sizes: tuple[Size, ...]
    """Sizes of the images in pixels."""
    full_tokens: int
    """Number of visual tokens of all images at full resolution."""
    rtr_pixel: float
    """Pixels of all views, divided by the pixels of all images."""
    decode_s: float
    """Seconds for decoding the images."""
    total_s: float
    """`decode_s` plus the seconds of the conversation."""
    notes: tuple[str, ...]
    """What the endpoint has changed about the request."""

    @property
    def visual_tokens(self) -> int:
        """The number of visual tokens of all views."""
        return sum(one.tokens for one in self.played.shown)

    @property
    def rtr_token(self) -> float:
        """The retained token ratio: `visual_tokens` / `full_tokens`, or 0 without images."""
        return self.visual_tokens / self.full_tokens if self.full_tokens else 0.0

    @property
    def hidden(self) -> int:
        """The number of sampled tokens outside the answer, such as tokens of requests for crops."""
        return self.played.sampled - len(self.played.ids)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question whose images are decoded, and the task of its conversations.

    `release` must be called once when the images are no longer needed.

    Example:
        Prepared(question, task, sizes=((112, 112),), decode_s=0.01, release=release)
    """

    question: ChatQuestion
    task: Task
    sizes: tuple[Size, ...]
    decode_s: float
    release: Callable[[], None]


class CropLoop:
    """Answers questions with an implementation of `Generate`, such as the engine.

    `most_images` is the largest number of views that the engine accepts in one prompt.
    `most_pixels` is the largest number of decoded pixels that all requests hold together.
    """

    def __init__(
        self,
        generate: Generate,
        chat: ChatFormat,
        spec: EpisodeSpec,
        limits: DecodeLimits,
        most_images: int,
        most_pixels: int,
    ):
        assert spec.budget is not None, "serving has a budget"
        self._generate, self.chat, self._spec = generate, chat, spec
        self._budget: Budget = spec.budget
        self._most_images = most_images
        self._admission = Admission(most_pixels)
        self._shelf = Shelf(limits)

    @property
    def pixels(self) -> int:
        """The number of pixels of the images of all requests in flight."""
        return self._admission.held

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of the environment's regions. The metrics count each region separately."""
        return self._spec.environment.regions

    async def prepare(self, question: ChatQuestion, images: Sequence[bytes]) -> Prepared:
        """Decode the images and choose the first views, once enough memory is free.

        Raises RequestError for too many images or pixels.
        Raises DataError for an unreadable image.
        Raises TooLong if text, smallest views and answer do not fit the context.
        """
        if len(images) > self._most_images:
            limit = (
                f"send at most {self._most_images} images (engine.max_images); got {len(images)}"
            )
            raise RequestError(limit, param="messages")
        prompt = self.chat.conversation(question.said, question.instructions)
        room = self._room(question, prompt)
        with ExitStack() as held:
            galleries, decode_s = await self._decoded(images, held)
            task = self._task(question, prompt, galleries, room)
            sizes = tuple(gallery.image.size for gallery in galleries)
            return Prepared(question, task, sizes, decode_s, held.pop_all().close)

    async def _decoded(
        self, images: Sequence[bytes], held: ExitStack
    ) -> tuple[list[Gallery], float]:
        """Wait until the pixels fit, then decode. Return the galleries and the decoding time in s.

        A gallery holds a decoded image and its rendered views. The caller must close `held`, which
        releases the pixels and the galleries.
        """
        names = [_name(index, len(images)) for index in range(len(images))]
        files = [await self._shelf.open(*one) for one in zip(images, names, strict=True)]
        pixels = sum(file.pixels for file in files)
        await self._admission.enter(pixels)
        held.callback(self._admission.leave, pixels)
        started = time.perf_counter()
        galleries = [await self._borrowed(file, held) for file in files]
        return galleries, time.perf_counter() - started

    async def _borrowed(self, file: ImageFile, held: ExitStack) -> Gallery:
        gallery = self._shelf.borrow(file)
        held.callback(self._shelf.give_back, file)
        return await gallery

    def _task(
        self,
        question: ChatQuestion,
        prompt: tuple[int, ...],
        galleries: Sequence[Gallery],
        room: int,
    ) -> Task:
        """Return the task of a question. Raises TooLong if the smallest views do not fit."""
        tokens = min(self._budget.visual_tokens, question.budget or self._budget.visual_tokens)
        images = tuple(gallery.image for gallery in galleries)
        sizes = tuple(image.size for image in images)
        return Task(
            prompt=prompt,
            galleries=tuple(galleries),
            first=first_views(self._spec, sizes, min(tokens, room), full=question.mode == "full"),
            asks=bool(images) and question.mode == "auto",
            crops=min(self._most_images, self._budget.crops + len(images)),
            tokens=tokens,
            context=self._budget.context,
            sampling=question.sampling,
            answer_tokens=question.answer_tokens,
            grammar=question.grammar,
            session=uuid.uuid4().hex,
        )

    async def low_view(self, data: bytes) -> bytes:
        """Return the first view of an image, as the policy sees it, in a PNG file.

        Raises DataError for an unreadable image, and RequestError for one with too many pixels.
        """
        tokens = min(self._budget.visual_tokens, self._budget.context)
        with ExitStack() as held:
            [gallery], _ = await self._decoded([data], held)
            [first] = first_views(self._spec, (gallery.image.size,), tokens, full=False)
            [view] = await gallery.show((first.view,), self._spec.low_ratio)
        return await asyncio.to_thread(_png, view)

    def _room(self, question: ChatQuestion, prompt: tuple[int, ...]) -> int:
        """Return how many visual tokens fit the context, next to the text and the answer."""
        text = len(prompt) - sum(one.images for one in question.said)
        room = self._budget.context - text - question.sampling.max_tokens
        if room < 0:
            raise TooLong(
                f"text and answer need {text + question.sampling.max_tokens} tokens of "
                f"{self._budget.context} (engine.max_model_len); shorten the question"
            )
        return room

    async def play(self, prepared: Prepared, tell: Tell | None = None) -> list[ServedAnswer]:
        """Play one conversation per choice. If a conversation fails, cancel the others.

        In the conversation of the first choice, `tell` is called with the views of each request.

        Raises RequestError (500) if a conversation fails. The log then states the reason.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._choice(prepared, index, tell if index == 0 else None))
                    for index in range(prepared.question.choices)
                ]
        except ExceptionGroup as failures:
            error = failures.exceptions[0]
            log.error("an answer failed: %s: %s", type(error).__name__, error)
            raise RequestError(
                "the engine could not finish this answer; the replica's log says why",
                status=500,
                code="engine_error",
            ) from error
        return [task.result() for task in tasks]

    async def _choice(self, prepared: Prepared, index: int, tell: Tell | None) -> ServedAnswer:
        started = time.perf_counter()
        task = prepared.task
        seed = task.sampling.seed
        sampling = (
            task.sampling if seed is None else replace(task.sampling, seed=(seed + index) % 2**63)
        )
        task = replace(task, sampling=sampling, session=f"{task.session}.{index}")
        talk = Talk(self._generate, self.chat, self._spec, task, tell or _silent)
        played = await talk.play()
        text, stopped = _stopped(played.text, prepared.question.stops)
        full = sum(visual_tokens(size, self._spec.limits) for size in prepared.sizes)
        return ServedAnswer(
            played=played,
            text=text,
            finish="length" if played.cut and not stopped else "stop",
            sizes=prepared.sizes,
            full_tokens=full,
            rtr_pixel=self._rtr_pixel(played.shown, prepared.sizes),
            decode_s=prepared.decode_s,
            total_s=prepared.decode_s + time.perf_counter() - started,
            notes=prepared.question.notes,
        )

    def _rtr_pixel(self, shown: Sequence[ShownView], sizes: Sequence[Size]) -> float:
        seen = [view_size(one.view, sizes[one.image], self._spec.low_ratio) for one in shown]
        pixels = sum(width * height for width, height in sizes)
        return rtr_pixel(seen, (pixels, 1)) if pixels else 0.0


async def _silent(views: tuple[ShownView, ...]) -> None:
    """Do nothing. This is the default for `tell`."""


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _name(index: int, count: int) -> str:
    return "image" if count == 1 else f"image {index}"


def _stopped(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether the text has a stop string."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
