"""Conversations about scenes, from which the tiny policy learns to see and to answer before it learns to ask for crops.

Four forms: the full view, the low view, a crop alone, and the low view followed by crops ("closer"). Full and low conversations may
begin with a description of the scene. Only answers are learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL.Image import Image

from awares.chat import ChatFormat
from awares.crops import CropId, crop_box, min_cover
from awares.images import render
from awares.mini.questions import KINDS, Kind, Question, ask, name, sample_kind
from awares.mini.scenes import SIDE, Item, Scene
from awares.view import View, crop_view, full_view

Form = Literal["full", "low", "crop", "closer"]
SIZE = (SIDE, SIDE)
ONE_CROP = (CropId.TOP_LEFT, CropId.TOP_RIGHT, CropId.BOTTOM_LEFT, CropId.BOTTOM_RIGHT, CropId.CENTER)


@dataclass(slots=True)
class Conversation:
    """Token ids with expanded image placeholders, which of them are learned, and the pixels of each image in order."""

    ids: list[int] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)

    def add(self, ids: Sequence[int], learned: bool = False) -> None:
        """Appends ids."""
        self.ids.extend(ids)
        self.learned.extend([learned] * len(ids))

    def show(self, ids: Sequence[int], images: Sequence[Image], placeholder: int) -> None:
        """Appends ids that hold one placeholder per image, each expanded to the image's merged tokens."""
        shown = iter(images)
        for token in ids:
            if token != placeholder:
                self.add((token,))
                continue
            pixels = np.asarray(next(shown))
            self.images.append(pixels)
            self.add((token,) * (pixels.shape[0] // 28 * (pixels.shape[1] // 28)))


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a stage of pre-training asks: how many questions of an image, how often its description first, of what kinds and digits.

    `legible` is the least height, in full-resolution pixels, of a digit that is asked for in the low view.

    Example:
        Lesson(questions=4, described=0.3, legible=16)
    """

    questions: int
    described: float
    legible: int
    kinds: tuple[Kind, ...] = tuple(KINDS)


def converse(form: Form, scene: Scene, image: Image, chat: ChatFormat, lesson: Lesson, rng: np.random.Generator) -> Conversation:
    """A conversation of this form about `image`, the drawn scene."""
    talk = Conversation()
    if form == "crop":
        crop = ONE_CROP[int(rng.integers(5))]
        inside = _inside(scene, (crop,))
        if inside:
            _discuss(talk, chat, [render(image, crop_view(crop, SIZE))], [_digit_on(item) for item in inside])
            return talk
        form = "full"
    if form == "closer":
        question = ask(scene, sample_kind(rng, ("digit at", "digit on", "sum", "larger")), rng)
        _look_closer(talk, chat, scene, image, question, rng)
        return talk
    legible = lesson.legible if form == "low" else 0
    questions = [_answerable(scene, lesson.kinds, legible, rng) for _ in range(lesson.questions)]
    view = View(None) if form == "low" else full_view(SIZE)
    _discuss(talk, chat, [render(image, view)], questions, _description(scene, legible) if rng.random() < lesson.described else None)
    return talk


def _discuss(
    talk: Conversation, chat: ChatFormat, images: Sequence[Image], questions: Sequence[Question], description: str | None = None
) -> None:
    pairs = [("Describe the image.", description)] if description else []
    pairs += [(question.text, question.answer) for question in questions]
    for turn, (text, answer) in enumerate(pairs):
        talk.show(chat.first_turn(text, len(images)) if turn == 0 else chat.follow_up(text), images, chat.image_token_id)
        talk.add(chat.target(answer), learned=True)


def _look_closer(talk: Conversation, chat: ChatFormat, scene: Scene, image: Image, question: Question, rng: np.random.Generator) -> None:
    """The low view, then crops that show the evidence (seldom the whole image), in one message or in two."""
    crops = list(min_cover([item.box for item in question.items], SIZE))
    if rng.random() < 0.1:
        crops = [CropId.ALL]
    elif rng.random() < 0.1:
        crops.append(CropId(str(int(rng.integers(9)))))
    views = [render(image, View(crop_box(crop, SIZE))) for crop in crops]
    low = render(image, View(None))
    if rng.random() < 0.3:
        talk.show(chat.first_turn(question.text, 1 + len(views)), [low, *views], chat.image_token_id)
    else:
        talk.show(chat.first_turn(question.text), [low], chat.image_token_id)
        talk.add(chat.target("Look closer."))
        talk.show(chat.tool_reply(len(views)), views, chat.image_token_id)
    talk.add(chat.target(question.answer), learned=True)
    for item in rng.permutation(np.array(_inside(scene, crops), dtype=object))[:2]:
        follow = _digit_on(item)
        talk.add(chat.follow_up(follow.text))
        talk.add(chat.target(follow.answer), learned=True)


def _answerable(scene: Scene, kinds: Sequence[Kind], legible: int, rng: np.random.Generator) -> Question:
    while True:
        question = ask(scene, sample_kind(rng, kinds), rng)
        if question.height >= legible:
            return question


def _description(scene: Scene, legible: int) -> str:
    """The items in reading order; a digit too small for the view is called small."""
    return "; ".join(f"{item.place}: {name(item)} {item.digit if item.height >= legible else 'small'}" for item in scene.items)


def _digit_on(item: Item) -> Question:
    return Question("digit on", f"What digit is on the {name(item)}?", str(item.digit), (item,), True)


def _inside(scene: Scene, crops: Sequence[CropId]) -> list[Item]:
    """Items that one of the crops shows whole."""
    boxes = [crop_box(crop, SIZE) for crop in crops]
    return [item for item in scene.items if any(_covers(box, item.box) for box in boxes)]


def _covers(outer: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]
