"""Measures the accuracy of the tiny policy on held-out questions, in three views.

The views are the full view, the low-resolution view, and the low-resolution view with the crops of
the evidence.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.crops import crop_box, min_cover
from awares.images import render
from awares.mini.benchmark import annotation, kind
from awares.mini.conversation import SIZE, Conversation
from awares.mini.digits import SplitName
from awares.mini.lessons import answer_logits, collate
from awares.mini.questions import Question, ask, sample_kind
from awares.mini.scenes import Scene, draw, sample_scene
from awares.view import View, full_view

VIEWS = ("full", "low", "closer")
GROUPS = ("all", "LR", "uncertain", "HR")


@dataclass(frozen=True, slots=True)
class Exam:
    """The accuracy of a policy on questions about scenes.

    Example:
        Exam({"full": {"all": 0.95}})
    """

    accuracy: dict[str, dict[str, float]]
    """The accuracy by view ("full", "low", "closer") and by group of questions.

    A group is "all", a label, a kind of question, or the height of a single digit, such as "9 px".
    """

    def lines(self) -> list[str]:
        """Return one line for each view, which lists the accuracy of each group."""
        return [
            f"{view:7}" + " ".join(f"{group} {value:.2f}" for group, value in groups.items())
            for view, groups in self.accuracy.items()
        ]


@torch.no_grad()
def examine(
    model: Qwen2_5_VLForConditionalGeneration,
    chat: ChatFormat,
    count: int,
    seed: int = 0,
    split: SplitName = "test",
) -> Exam:
    """Measure greedy exact match on `count` questions in each view.

    A greedy answer matches if each id of the true answer has the highest logit. One forward pass
    over the true answer therefore suffices.
    """
    rng = np.random.default_rng((seed, 77))
    questions = []
    for _ in range(count):
        scene = sample_scene(split, rng)
        questions.append((scene, ask(scene, sample_kind(rng), rng)))
    groups = [_groups(question) for _, question in questions]
    views = {
        view: [_talk(view, scene, question, chat) for scene, question in questions]
        for view in VIEWS
    }
    placeholder = chat.image_token_id
    return Exam(
        {view: _tally(_correct(model, talks, placeholder), groups) for view, talks in views.items()}
    )


def _talk(view: str, scene: Scene, question: Question, chat: ChatFormat) -> Conversation:
    talk, image = Conversation(), draw(scene)
    first = render(image, full_view(SIZE) if view == "full" else View(None))
    talk.show(chat.first_turn(question.text), [first], chat.image_token_id)
    if view == "closer":
        cover = min_cover([item.box for item in question.items], SIZE)
        crops = [render(image, View(crop_box(crop, SIZE))) for crop in cover]
        talk.add(chat.target("Look closer."))
        talk.show(chat.tool_reply(len(crops)), crops, chat.image_token_id)
    talk.add(chat.target(question.answer), learned=True)
    return talk


def _groups(question: Question) -> tuple[str, ...]:
    label = annotation(question)
    single = question.reads and len(question.items) == 1
    return (
        "all",
        label.value if label else "uncertain",
        kind(question),
        *([f"{question.height} px"] if single else ()),
    )


def _correct(
    model: Qwen2_5_VLForConditionalGeneration,
    talks: Sequence[Conversation],
    placeholder: int,
    size: int = 100,
) -> list[bool]:
    right: list[bool] = []
    for start in range(0, len(talks), size):
        part = talks[start : start + size]
        logits, targets = answer_logits(model, collate(part, placeholder))
        hits = (logits.argmax(-1) == targets).tolist()
        for talk in part:
            length = sum(talk.learned)
            right.append(all(hits[:length]))
            hits = hits[length:]
    return right


def _tally(right: Sequence[bool], groups: Sequence[tuple[str, ...]]) -> dict[str, float]:
    marks: dict[str, list[bool]] = defaultdict(list)
    for mark, names in zip(right, groups, strict=True):
        for name in names:
            marks[name].append(mark)
    return {name: float(np.mean(marks[name])) for name in sorted(marks, key=_place)}


def _place(group: str) -> tuple[int, int, str]:
    """Return a sort key that puts labels first, then kinds by name, then heights by number."""
    if group in GROUPS:
        return GROUPS.index(group), 0, ""
    height = group.removesuffix(" px")
    return (len(GROUPS), 0, group) if height == group else (len(GROUPS) + 1, int(height), "")
