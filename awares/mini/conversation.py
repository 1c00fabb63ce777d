"""Conversations about scenes, from which the tiny policy learns to see and to answer before it learns to ask for crops.

Five forms: the full view, the low view, a crop alone, the low view followed by crops ("closer"), and the low view with a command that names
the places to request ("command"): how a request is written, but neither when nor where. Else a conversation is one question, or a
description of the whole scene: by place or by colour, items in any order, so that each word is looked up by the one before it. That is
where finding comes from; asked single questions only, the model never learns to find. Only what the view shows is learned.
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
from awares.protocol import format_request
from awares.view import View, crop_view, full_view

Form = Literal["full", "low", "crop", "closer", "command"]
SIZE = (SIDE, SIDE)
READING: tuple[Kind, ...] = ("digit at", "digit on", "sum", "larger")
BY_PLACE, BY_COLOR = "Describe the image.", "List the shapes."
ONE_CROP = (
    CropId.TOP_LEFT,
    CropId.TOP_RIGHT,
    CropId.BOTTOM_LEFT,
    CropId.BOTTOM_RIGHT,
    CropId.CENTER,
)


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
    """What a stage of pre-training asks of full and low views: how often a description, else one question, of which kinds and digits.

    `legible` is the least height, in full-resolution pixels, of a digit that is asked for in the low view; `closer` the kinds of questions
    that are asked before crops. `requests` shows the request that crops answer as it will be written, to be read past: its crop numbers are
    digits, too. Writing one is left to fine-tuning.

    Example:
        Lesson(described=0.2, legible=16)
    """

    described: float
    legible: int
    kinds: tuple[Kind, ...] = tuple(KINDS)
    closer: tuple[Kind, ...] = READING
    requests: bool = False


def converse(
    form: Form,
    scene: Scene,
    image: Image,
    chat: ChatFormat,
    lesson: Lesson,
    rng: np.random.Generator,
) -> Conversation:
    """A conversation of this form about `image`, the drawn scene."""
    talk = Conversation()
    if form == "crop":
        crop = ONE_CROP[int(rng.integers(5))]
        inside = _inside(scene, (crop,))
        if inside:
            _ask(
                talk,
                chat,
                render(image, crop_view(crop, SIZE)),
                _digit_on(inside[int(rng.integers(len(inside)))]),
            )
            return talk
        form = "full"
    if form == "closer":
        question = ask(scene, sample_kind(rng, lesson.closer), rng)
        _look_closer(talk, chat, scene, image, question, lesson.requests, rng)
        return talk
    if form == "command":
        _command(talk, chat, scene, image, rng)
        return talk
    legible = lesson.legible if form == "low" else 0
    shown = render(image, View(None) if form == "low" else full_view(SIZE))
    if rng.random() < lesson.described:
        _describe(talk, chat, shown, scene, legible, rng)
    else:
        _ask(talk, chat, shown, _answerable(scene, lesson.kinds, legible, rng))
    return talk


def _ask(talk: Conversation, chat: ChatFormat, image: Image, question: Question) -> None:
    talk.show(chat.first_turn(question.text), [image], chat.image_token_id)
    talk.add(chat.target(question.answer), learned=True)


def _describe(
    talk: Conversation,
    chat: ChatFormat,
    image: Image,
    scene: Scene,
    legible: int,
    rng: np.random.Generator,
) -> None:
    """Every item in any order: what is at a place, or where a colour is. A digit too small for the view is called small."""
    by_place = rng.random() < 0.5
    talk.show(chat.first_turn(BY_PLACE if by_place else BY_COLOR), [image], chat.image_token_id)
    for turn, index in enumerate(rng.permutation(len(scene.items))):
        item = scene.items[int(index)]
        digit = str(item.digit) if item.height >= legible else "small"
        key, found = (
            (f"{item.place}:", f" {name(item)} {digit}")
            if by_place
            else (item.color, f" {item.shape} {item.place} {digit}")
        )
        talk.add(chat.encode(f"; {key}" if turn else key))
        talk.add(chat.encode(found), learned=True)
    talk.add((chat.end_id,), learned=True)


def _command(
    talk: Conversation, chat: ChatFormat, scene: Scene, image: Image, rng: np.random.Generator
) -> None:
    chosen = [
        scene.items[int(index)]
        for index in rng.permutation(len(scene.items))[: 1 + int(rng.random() < 0.3)]
    ]
    text = " and the ".join(item.place for item in chosen)
    talk.show(
        chat.first_turn(f"Look at the {text}."), [render(image, View(None))], chat.image_token_id
    )
    talk.add(
        chat.target(format_request(min_cover([item.box for item in chosen], SIZE))), learned=True
    )


def _look_closer(
    talk: Conversation,
    chat: ChatFormat,
    scene: Scene,
    image: Image,
    question: Question,
    requests: bool,
    rng: np.random.Generator,
) -> None:
    """The low view, then crops that show the evidence (seldom the whole image), in one message or in two."""
    crops = list(min_cover([item.box for item in question.items], SIZE))
    if rng.random() < 0.1:
        crops = [CropId.ALL]
    elif rng.random() < 0.1:
        crops.append(CropId(str(int(rng.integers(9)))))
    views = [render(image, View(crop_box(crop, SIZE))) for crop in crops]
    low = render(image, View(None))
    if rng.random() < 0.3:
        talk.show(
            chat.first_turn(question.text, 1 + len(views)), [low, *views], chat.image_token_id
        )
    else:
        talk.show(chat.first_turn(question.text), [low], chat.image_token_id)
        talk.add(chat.target(format_request(crops) if requests else "Look closer."))
        talk.show(chat.tool_reply(len(views)), views, chat.image_token_id)
    talk.add(chat.target(question.answer), learned=True)
    for item in rng.permutation(np.array(_inside(scene, crops), dtype=object))[:2]:
        follow = _digit_on(item)
        talk.add(chat.follow_up(follow.text))
        talk.add(chat.target(follow.answer), learned=True)


def _answerable(
    scene: Scene, kinds: Sequence[Kind], legible: int, rng: np.random.Generator
) -> Question:
    while True:
        question = ask(scene, sample_kind(rng, kinds), rng)
        if question.height >= legible:
            return question


def _digit_on(item: Item) -> Question:
    return Question(
        "digit on", f"What digit is on the {name(item)}?", str(item.digit), (item,), True
    )


def _inside(scene: Scene, crops: Sequence[CropId]) -> list[Item]:
    """Items that one of the crops shows whole."""
    boxes = [crop_box(crop, SIZE) for crop in crops]
    return [item for item in scene.items if any(_covers(box, item.box) for box in boxes)]


def _covers(outer: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[2] >= inner[2]
        and outer[3] >= inner[3]
    )
