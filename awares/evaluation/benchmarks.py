"""Describes the paper's six benchmarks as lmms-eval runs them: columns, prompts, limits, scorers.

On 2026-07-30, all data sets except OCRBench moved to another owner on the Hugging Face hub.
Papers name the old ids.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

BenchmarkName = Literal["chartqa", "docvqa", "ocrbench", "pope", "realworldqa", "vstar"]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: where its rows are, and how its questions are asked and scored.

    Example:
        BENCHMARKS["pope"].prompt("Is there a dog?")
    """

    name: BenchmarkName
    ids: tuple[str, ...]
    """The ids of the data set on the Hugging Face hub, the newest first."""
    split: str
    """The split of the data set, which has `rows` rows."""
    rows: int
    question: str
    """The name of the column with the question."""
    answer: str
    """The name of the column with the accepted answers."""
    sample_id: str
    """The name of the column with the id of a row, or "" without such a column."""
    kind: str
    """The name of the column with the kind of question, or "" without such a column."""
    scorer: str
    """A name in awares.evaluation.scorers."""
    max_tokens: int
    """The token limit of an answer."""
    suffix: str = ""
    """The text that follows each question in the prompt."""
    folder: str = ""
    """The folder of the data set that holds its files, or "" for the top level."""
    keeps_spaces: bool = False
    """Whether the prompt keeps the spaces around the question."""

    def prompt(self, question: str) -> str:
        """Return the prompt of a question."""
        asked = _with_lines(question) if self.name == "vstar" else question
        return f"{asked if self.keeps_spaces else asked.strip()}{self.suffix}"

    def scorer_of(self, record: Mapping[str, Any]) -> str:
        """Return the name of a row's scorer."""
        is_formula = self.name == "ocrbench" and record.get("dataset") == "HME100k"
        return "ocrbench_math" if is_formula else self.scorer


def _with_lines(question: str) -> str:
    """Return a question of V*Bench with its options "(A) x (B) y" as lines "A. x" and "B. y".

    The lines have no spaces around them. As in lmms-eval, a question without options is returned
    unchanged.
    """
    options = re.findall(r"\([A-D]\)\s*([^()]+?)(?=\s*\([A-D]\)|$)", question)
    if not options:
        return question
    lines = [f"{letter}. {option.strip()}" for letter, option in zip("ABCD", options, strict=False)]
    return "\n".join([question.split("(A)")[0].strip(), *lines])


_PHRASE = "\nAnswer the question using a single word or phrase."
_MOVED = "lmms-lab-encoder", "lmms-lab"


def _moved(name: str) -> tuple[str, ...]:
    return tuple(f"{owner}/{name}" for owner in _MOVED)


_ALL = (
    Benchmark(
        name="chartqa",
        ids=_moved("ChartQA"),
        split="test",
        rows=2500,
        question="question",
        answer="answer",
        sample_id="",
        kind="type",
        scorer="chartqa",
        max_tokens=16,
        suffix="\nAnswer the question with a single word.",
        keeps_spaces=True,
    ),
    Benchmark(
        name="docvqa",
        ids=_moved("DocVQA"),
        folder="DocVQA",
        split="validation",
        rows=5349,
        question="question",
        answer="answers",
        sample_id="questionId",
        kind="question_types",
        scorer="docvqa",
        max_tokens=32,
        suffix=_PHRASE,
        keeps_spaces=True,
    ),
    Benchmark(
        name="ocrbench",
        ids=("echo840/OCRBench",),
        split="test",
        rows=1000,
        question="question",
        answer="answer",
        sample_id="",
        kind="question_type",
        scorer="ocrbench",
        max_tokens=128,
    ),
    Benchmark(
        name="pope",
        ids=_moved("POPE"),
        split="test",
        rows=9000,
        question="question",
        answer="answer",
        sample_id="question_id",
        kind="category",
        scorer="pope",
        max_tokens=128,
        suffix=_PHRASE,
    ),
    Benchmark(
        name="realworldqa",
        ids=_moved("RealWorldQA"),
        split="test",
        rows=765,
        question="question",
        answer="answer",
        sample_id="",
        kind="",
        scorer="realworldqa",
        max_tokens=16,
    ),
    Benchmark(
        name="vstar",
        ids=_moved("vstar-bench"),
        split="test",
        rows=191,
        question="text",
        answer="label",
        sample_id="question_id",
        kind="category",
        scorer="vstar_bench",
        max_tokens=16,
        suffix="\nAnswer with the option's letter from the given choices directly.",
        keeps_spaces=True,
    ),
)
BENCHMARKS: Mapping[str, Benchmark] = {one.name: one for one in _ALL}
"""The benchmarks by their names, in the order of the paper's table 1."""
