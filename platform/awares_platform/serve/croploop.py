"""Answers a question about encoded images, for the endpoint. Needs neither HTTP nor Ray.

prepare  decode the images, choose the first views, check that everything fits the context
play     one conversation per choice (talk.py), all on the same rendered views
"""

import asyncio
import io
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL.Image import Image

from awares.budget import Budget
from awares.chat import ChatFormat
from awares.episode_spec import EpisodeSpec
from awares.errors import TooLong
from awares.gallery import Gallery
from awares.generate import Generate
from awares.images import DecodeLimits, decode, render
from awares.tokens import Size, rtr_pixel, visual_tokens
from awares.view import view_size
from awares_platform.serve.allotment import ShownView, first_views
from awares_platform.serve.errors import RequestError
from awares_platform.serve.openai import ChatQuestion
from awares_platform.serve.talk import Talk, TalkResult, Task, Tell

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """The answer of one choice, with its token counts.

    `played` is the outcome of the conversation, and `text` is the answer. `finish` is OpenAI's
    finish_reason. `sizes` are the sizes of the images in pixels. `full_tokens` counts the visual
    tokens of all images at full resolution, and `rtr_pixel` is the retained ratio of pixels.
    `decode_s` is the time of decoding the images in seconds. `total_s` adds the time of the
    conversation. `notes` say what the endpoint has changed about the request.

    Example:
        ServedAnswer(
            played=played, text="7", finish="stop", sizes=((112, 112),), full_tokens=16,
            rtr_pixel=0.25, decode_s=0.01, total_s=0.21, notes=(),
        )
    """

    played: TalkResult
    text: str
    finish: str
    sizes: tuple[Size, ...]
    full_tokens: int
    rtr_pixel: float
    decode_s: float
    total_s: float
    notes: tuple[str, ...]

    @property
    def visual_tokens(self) -> int:
        """The number of visual tokens of all views."""
        return sum(one.tokens for one in self.played.shown)

    @property
    def rtr_token(self) -> float:
        """The retained token ratio, or 0 without images."""
        return self.visual_tokens / self.full_tokens if self.full_tokens else 0.0

    @property
    def hidden(self) -> int:
        """The number of sampled tokens that are no part of the answer, such as requests."""
        return self.played.sampled - len(self.played.ids)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question whose images are decoded, and the task of its conversations.

    Example:
        Prepared(question, task, sizes=((112, 112),), decode_s=0.01)
    """

    question: ChatQuestion
    task: Task
    sizes: tuple[Size, ...]
    decode_s: float


class CropLoop:
    """Answers questions with an implementation of `Generate`, such as the engine.

    `most_images` is the largest number of views that the engine accepts in one prompt.
    """

    def __init__(
        self,
        generate: Generate,
        chat: ChatFormat,
        spec: EpisodeSpec,
        limits: DecodeLimits,
        most_images: int,
    ):
        assert spec.budget is not None, "serving has a budget"
        self._generate, self.chat, self._spec = generate, chat, spec
        self._budget: Budget = spec.budget
        self._limits, self._most_images = limits, most_images

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of the regions for which the metrics have separate counts."""
        return self._spec.environment.regions

    async def prepare(self, question: ChatQuestion, images: Sequence[bytes]) -> Prepared:
        """Decode the images and choose the first views.

        Raises RequestError for too many images, DataError for an unreadable image, and TooLong if
        text, smallest views and answer do not fit the context.
        """
        if len(images) > self._most_images:
            limit = (
                f"send at most {self._most_images} images (engine.max_images); got {len(images)}"
            )
            raise RequestError(limit, param="messages")
        started = time.perf_counter()
        decoded = [
            await asyncio.to_thread(decode, data, self._limits, source=_name(index, len(images)))
            for index, data in enumerate(images)
        ]
        decode_s = time.perf_counter() - started
        sizes = tuple(image.size for image in decoded)
        prompt = self.chat.conversation(question.said, question.instructions)
        tokens = min(self._budget.visual_tokens, question.budget or self._budget.visual_tokens)
        room = self._room(question, prompt)
        first = first_views(self._spec, sizes, min(tokens, room), full=question.mode == "full")
        task = Task(
            prompt=prompt,
            galleries=tuple(Gallery(image) for image in decoded),
            first=first,
            asks=bool(images) and question.mode == "auto",
            crops=min(self._most_images, self._budget.crops + len(images)),
            tokens=tokens,
            context=self._budget.context,
            sampling=question.sampling,
            answer_tokens=question.answer_tokens,
            grammar=question.grammar,
            session=uuid.uuid4().hex,
        )
        return Prepared(question, task, sizes, decode_s)

    async def low_view(self, data: bytes) -> bytes:
        """Return the pixels of an image that the policy sees first, as a PNG file.

        Raises DataError for an unreadable image.
        """
        image = await asyncio.to_thread(decode, data, self._limits)
        tokens = min(self._budget.visual_tokens, self._budget.context)
        [first] = first_views(self._spec, (image.size,), tokens, full=False)
        view = await asyncio.to_thread(render, image, first.view, self._spec.low_ratio)
        return await asyncio.to_thread(_png, view)

    def _room(self, question: ChatQuestion, prompt: tuple[int, ...]) -> int:
        """Return the visual tokens that the context leaves for the first views."""
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

        `tell` gets the views that answer the requests of the first choice. Raises RequestError
        (500) if a conversation fails. The log then names the reason.
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
    """Tell nobody about the views."""


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _name(index: int, count: int) -> str:
    return "image" if count == 1 else f"image {index}"


def _stopped(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there is such a string."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
