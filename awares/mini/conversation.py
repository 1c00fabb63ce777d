"""Makes conversations about scenes, which teach the tiny policy to see and to answer before SFT.

A conversation has one of five forms:

    full     the full view
    low      the low-resolution view
    crop     one crop alone
    closer   the low-resolution view, then crops of the evidence
    command  the low-resolution view, and a command that names the places to request

A command teaches the policy how to write a request, but not when to write one or which crops to
request. The other forms ask questions. Instead of a question, the forms "full" and "low" may ask
for a description of the whole scene, by place or by colour. A description lists the items in random
order. To predict the next word, the model must therefore look up the item that the previous word
names. Descriptions teach the model to find items. Single questions alone do not teach this skill.
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

LessonForm = Literal["full", "low", "crop", "closer", "command"]
SIZE = (SIDE, SIDE)
READING: tuple[Kind, ...] = ("digit at", "digit on", "sum", "larger")
BY_PLACE, BY_COLOR = "Describe the image.", "List the shapes."

# Each of these crops can contain the whole item of only one place in a scene.
ONE_CROP = (
    CropId.TOP_LEFT,
    CropId.TOP_RIGHT,
    CropId.BOTTOM_LEFT,
    CropId.BOTTOM_RIGHT,
    CropId.CENTER,
)


@dataclass(slots=True)
class Conversation:
    """Token ids, with one image placeholder for each visual token of an image."""

    ids: list[int] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    """One flag for each id, which is true if the loss counts the id as a target."""
    images: list[np.ndarray] = field(default_factory=list)
    """The pixels of the images in order."""

    def add(self, ids: Sequence[int], learned: bool = False) -> None:
        """Append `ids`, all with the flag `learned`."""
        self.ids.extend(ids)
        self.learned.extend([learned] * len(ids))

    def show(self, ids: Sequence[int], images: Sequence[Image], placeholder: int) -> None:
        """Append `ids`, and repeat each image's placeholder once for each of its visual tokens."""
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
    """The tasks of a stage of pre-training.

    Example:
        Lesson(described=0.2, legible=16)
    """

    described: float
    """The share of conversations that ask for a description. The others ask one question."""
    legible: int
    """The height in pixels of the smallest digits that a question about a low view asks for."""
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """The kinds of questions."""
    closer: tuple[Kind, ...] = READING
    """The kinds of questions in conversations of the form "closer"."""
    requests: bool = False
    """Whether a request precedes the crops. If false, the text "Look closer." precedes them.

    The ids of crops in a request are digits, and the policy learns not to answer with them.
    """


def converse(
    form: LessonForm,
    scene: Scene,
    image: Image,
    chat: ChatFormat,
    lesson: Lesson,
    rng: np.random.Generator,
) -> Conversation:
    """Make a conversation of the given form about `image`, which shows `scene`.

    The form "crop" shows a random crop. If this crop contains no item, the form is "full" instead.
    """
    talk = Conversation()
    if form == "crop":
        crop = ONE_CROP[int(rng.integers(5))]
        inside = _inside(scene, (crop,))
        if inside:
            item = inside[int(rng.integers(len(inside)))]
            _ask(talk, chat, render(image, crop_view(crop, SIZE)), _digit_on(item))
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
    """Append a description of all items in random order, either by place or by colour.

    If a digit is less than `legible` pixels high, the description calls it "small".
    """
    by_place = rng.random() < 0.5
    talk.show(chat.first_turn(BY_PLACE if by_place else BY_COLOR), [image], chat.image_token_id)
    for turn, index in enumerate(rng.permutation(len(scene.items))):
        item = scene.items[int(index)]
        digit = str(item.digit) if item.height >= legible else "small"
        if by_place:
            key, found = f"{item.place}:", f" {name(item)} {digit}"
        else:
            key, found = item.color, f" {item.shape} {item.place} {digit}"
        talk.add(chat.encode(f"; {key}" if turn else key))
        talk.add(chat.encode(found), learned=True)
    talk.add((chat.end_id,), learned=True)


def _command(
    talk: Conversation, chat: ChatFormat, scene: Scene, image: Image, rng: np.random.Generator
) -> None:
    """Append a command that names one or two places, and the request for crops of these places."""
    order = rng.permutation(len(scene.items))
    count = 1 + int(rng.random() < 0.3)
    chosen = [scene.items[int(index)] for index in order[:count]]
    text = f"Look at the {' and the '.join(item.place for item in chosen)}."
    talk.show(chat.first_turn(text), [render(image, View(None))], chat.image_token_id)
    request = format_request(min_cover([item.box for item in chosen], SIZE))
    talk.add(chat.target(request), learned=True)


def _look_closer(
    talk: Conversation,
    chat: ChatFormat,
    scene: Scene,
    image: Image,
    question: Question,
    requests: bool,
    rng: np.random.Generator,
) -> None:
    """Append the question with the low-resolution view, then crops of the evidence, and the answer.

    One conversation in ten shows the whole image instead of the crops. Up to two further questions
    ask for digits inside the crops.
    """
    crops = list(min_cover([item.box for item in question.items], SIZE))
    if rng.random() < 0.1:
        crops = [CropId.ALL]
    elif rng.random() < 0.1:
        crops.append(CropId(str(int(rng.integers(9)))))
    views = [render(image, View(crop_box(crop, SIZE))) for crop in crops]
    low = render(image, View(None))
    if rng.random() < 0.3:
        prompt = chat.first_turn(question.text, 1 + len(views))
        talk.show(prompt, [low, *views], chat.image_token_id)
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
    text = f"What digit is on the {name(item)}?"
    return Question("digit on", text, str(item.digit), (item,), True)


def _inside(scene: Scene, crops: Sequence[CropId]) -> list[Item]:
    """Return the items that lie entirely in one of the crops."""
    boxes = [crop_box(crop, SIZE) for crop in crops]
    return [item for item in scene.items if any(_covers(box, item.box) for box in boxes)]


def _covers(outer: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[2] >= inner[2]
        and outer[3] >= inner[3]
    )
