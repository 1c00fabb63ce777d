"""The benchmark's splits: images with questions, reproducible from (split, seed, index)."""

import hashlib
import io
from collections.abc import Iterator

import numpy as np

from awares.crops import min_cover
from awares.mini.digits import Split
from awares.mini.questions import Question, ask, sample_kind
from awares.mini.scenes import ILLEGIBLE, LARGE, MIDDLE, SIDE, Scene, draw, sample_scene
from awares.sample import Label, Sample
from awares.seeds import derive


def generate_split(split: Split, count: int, seed: int) -> Iterator[tuple[bytes, Sample]]:
    """`count` PNG files of scenes, each with one question. Scans of the two splits are disjoint.

    `kind` is the question's kind, followed by the size of the smallest digit to be read, if any: "sum/small". Questions that read nothing
    or large digits are annotated LR, those that read an illegible one HR with the crops that cover the evidence, and those between not at
    all.
    """
    for index in range(count):
        rng = np.random.default_rng(derive(seed, f"mini/{split}", str(index)))
        scene = sample_scene(split, rng)
        question = ask(scene, sample_kind(rng), rng)
        data = encode(scene)
        yield (
            data,
            Sample(
                sample_id=f"mini/{split}/{seed}/{index}",
                image=hashlib.sha256(data).hexdigest(),
                question=question.text,
                answer=question.answer,
                kind=kind(question),
                evidence=tuple(item.box for item in question.items),
                label=(label := annotation(question)),
                crops=min_cover([item.box for item in question.items], (SIDE, SIDE))
                if label is Label.HR
                else (),
            ),
        )


def encode(scene: Scene) -> bytes:
    """The scene as a PNG file."""
    buffer = io.BytesIO()
    draw(scene).save(
        buffer, "PNG", compress_level=1
    )  # noise does not compress, and trying takes longer than drawing
    return buffer.getvalue()


def annotation(question: Question) -> Label | None:
    """LR, HR, or None where the low view may or may not suffice."""
    if not question.reads or question.height >= LARGE[0]:
        return Label.LR
    return Label.HR if question.height <= ILLEGIBLE else None


def kind(question: Question) -> str:
    """The question's kind and the size class of the smallest digit that it reads."""
    if not question.reads:
        return question.kind
    size = (
        "large"
        if question.height >= LARGE[0]
        else "middle"
        if question.height >= MIDDLE[0]
        else "small"
    )
    return f"{question.kind}/{size}"
