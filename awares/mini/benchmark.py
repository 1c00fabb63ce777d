"""Generates the splits of the benchmark. A sample depends only on (split, seed, index)."""

import hashlib
import io
from collections.abc import Callable, Iterator

import numpy as np

from awares.crops import min_cover
from awares.mini.digits import SplitName
from awares.mini.questions import Question, ask, sample_kind
from awares.mini.scenes import ILLEGIBLE, LARGE, MIDDLE, Scene, draw, sample_scene
from awares.sample import Label, Sample
from awares.seeds import derive


def generate_split(split: SplitName, count: int, seed: int) -> Iterator[tuple[bytes, Sample]]:
    """Yield `count` scenes as PNG files, each with one question.

    `annotation` defines the label of a question. A question with the label HR also has the crops
    that cover the evidence. The splits share no handwritten digit.
    """
    return ask_about(sample_scene, "mini", split, count, seed)


def ask_about(
    scenes: Callable[[SplitName, np.random.Generator], Scene],
    name: str,
    split: SplitName,
    count: int,
    seed: int,
) -> Iterator[tuple[bytes, Sample]]:
    """Yield `count` scenes as PNG files, each with one question.

    `scenes` is the function that draws a scene at random. The ids of the samples begin with `name`,
    and the seeds of the scenes depend on `name`.
    """
    for index in range(count):
        rng = np.random.default_rng(derive(seed, f"{name}/{split}", str(index)))
        scene = scenes(split, rng)
        question = ask(scene, sample_kind(rng), rng)
        data = encode(scene)
        label = annotation(question)
        evidence = tuple(item.box for item in question.items)
        sample = Sample(
            sample_id=f"{name}/{split}/{seed}/{index}",
            image=hashlib.sha256(data).hexdigest(),
            question=question.text,
            answer=question.answer,
            kind=kind(question),
            evidence=evidence,
            label=label,
            crops=tuple(map(str, min_cover(evidence, (scene.side, scene.side))))
            if label is Label.HR
            else (),
        )
        yield data, sample


def encode(scene: Scene) -> bytes:
    """Draw the scene, and return the bytes of a PNG file."""
    buffer = io.BytesIO()
    # Level 1 is the fastest. Higher levels hardly help, because the noise is incompressible.
    draw(scene).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def annotation(question: Question) -> Label | None:
    """Return the label of a question, or None if the label is uncertain.

    LR: the answer needs no digit, or only large digits.
    HR: the answer needs a digit that is illegible at low resolution.
    """
    if not question.reads or question.height >= LARGE[0]:
        return Label.LR
    return Label.HR if question.height <= ILLEGIBLE else None


def kind(question: Question) -> str:
    """Return the kind of question and the size of the smallest digit to read, as in "sum/small".

    If the answer needs no digit, the result is the kind alone.
    """
    if not question.reads:
        return question.kind
    if question.height >= LARGE[0]:
        return f"{question.kind}/large"
    return f"{question.kind}/{'middle' if question.height >= MIDDLE[0] else 'small'}"
