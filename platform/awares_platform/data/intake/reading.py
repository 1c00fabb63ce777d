"""Turns a record into one or more drafts: samples whose images are not stored yet."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from awares.crops import Box
from awares.errors import ConfigError
from awares.evaluation.benchmarks import BENCHMARKS, Benchmark
from awares.evaluation.scorers import scorer
from awares.sample import Sample
from awares.text_form import normalise
from awares_platform.config.imports import ImportsConfig
from awares_platform.data.intake.annotations import questions
from awares_platform.data.intake.columns import TURNS, SourceColumns, value_at
from awares_platform.data.intake.evidence import read_boxes
from awares_platform.data.intake.picture import Picture, PictureFinder, stored_form
from awares_platform.data.intake.records import Row, UnreadableRow
from awares_platform.data.intake.refusal import Refused

_ANY_SIDE = 1 << 31


@dataclass(frozen=True, slots=True)
class Draft:
    """A sample whose image is not stored yet. `sample.image` is therefore empty.

    Example:
        Draft(Sample("train/0", "", "What is the total?", "4.20"), picture)
    """

    sample: Sample
    picture: Picture


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A refused row: its file and number, the kind of fault, and details of this row.

    Example:
        RefusedRow("train.jsonl row 17", "no answer", "the column answers holds []")
    """

    where: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Turns records into drafts. It is thread-safe.

    Example:
        RecordReader(columns, config.imports, finder).read(record, "train.jsonl", 17)
    """

    columns: SourceColumns
    settings: ImportsConfig
    finder: PictureFinder

    def read(self, row: Row, file: str, index: int) -> list[Draft | RefusedRow]:
        """Return the drafts of row number `index` of a file, or the reasons why it has none."""
        where = f"{file} row {index}"
        if isinstance(row, UnreadableRow):
            return [RefusedRow(file if row.ends else where, "unreadable", row.reason)]
        try:
            picture = self._picture(row)
            evidence = self._evidence(row, picture)
            return [self._draft(asked, row, picture, evidence, where) for asked in self._asked(row)]
        except Refused as error:
            return [RefusedRow(where, error.reason, error.detail)]

    def _picture(self, record: Mapping[str, Any]) -> Picture:
        value = value_at(record, self.columns.image)
        most = self.settings.max_side if self._benchmark is None else _ANY_SIDE
        return stored_form(self.finder.read(value), most)

    def _evidence(self, record: Mapping[str, Any], picture: Picture) -> tuple[Box, ...]:
        value = value_at(record, self.columns.boxes)
        return read_boxes(value, self.settings, picture.original, picture.size)

    def _asked(self, record: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield each question of a record, its accepted answers, and a suffix for its id."""
        if not self.columns.question.startswith(TURNS):
            question = value_at(record, self.columns.question)
            yield question, value_at(record, self.columns.answer), ""
            return
        turns = value_at(record, self.columns.question.removeprefix(TURNS))
        found = list(questions(turns if isinstance(turns, list) else ()))
        if not found:
            raise Refused("no question", "no turn of a user is followed by an answer")
        for number, (question, answer) in enumerate(found):
            yield question, answer, f"/{number}" if len(found) > 1 else ""

    def _draft(
        self,
        asked: tuple[str, Any, str],
        record: Mapping[str, Any],
        picture: Picture,
        evidence: tuple[Box, ...],
        where: str,
    ) -> Draft | RefusedRow:
        question, answers, suffix = asked
        try:
            first, *further = self._answers(answers)
            name = label_text(value_at(record, self.columns.sample_id)) or where
            sample = Sample(
                sample_id=f"{name}{suffix}",
                image="",
                question=self._prompt(question),
                answer=first,
                kind=label_text(value_at(record, self.columns.kind)),
                evidence=evidence,
            )
            return Draft(
                replace(sample, further_answers=tuple(further), scorer=self._scorer(record)),
                picture,
            )
        except Refused as error:
            return RefusedRow(where, error.reason, error.detail)

    def _answers(self, value: Any) -> list[str]:
        """Return the accepted answers. The answers of a benchmark stay unchanged."""
        if self._benchmark is None:
            return accepted(value)
        texts = [_encodable(text) for text in _listed(value) if isinstance(text, str) and text]
        if not texts:
            raise Refused("no answer", f"the answer is {value!r}"[:200])
        return texts

    def _prompt(self, question: Any) -> str:
        text = _question(question)
        return text if self._benchmark is None else self._benchmark.prompt(question)

    @property
    def _benchmark(self) -> Benchmark | None:
        return BENCHMARKS.get(self.settings.benchmark)

    def _scorer(self, record: Mapping[str, Any]) -> str:
        if self._benchmark is not None:
            return self._benchmark.scorer_of(record)
        name = label_text(value_at(record, self.columns.scorer)) or self.settings.scorer
        if name == "none":
            return ""
        try:
            scorer(name)
        except ConfigError as error:
            raise Refused("unknown scorer", str(error)) from error
        return name


def _question(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refused("no question", f"the question is {value!r}"[:200])
    return _encodable(value.replace("<image>", "").strip())


def accepted(value: Any) -> list[str]:
    """Return the distinct answers in `value`, the most frequent first.

    Answers that are equal after `normalise` count as one. Raises Refused if there is no answer.

    Example:
        accepted(["nokia", "Nokia", "NOKIA phone"])  # ["nokia", "NOKIA phone"]
    """
    texts = [text for text in map(_answer, _listed(value)) if text]
    if not texts:
        raise Refused("no answer", f"the answer is {value!r}"[:200])
    counts, spelt = Counter(map(normalise, texts)), {normalise(text): text for text in texts[::-1]}
    return [spelt[form] for form, _ in counts.most_common()]


def _listed(value: Any) -> list[Any]:
    """Return the answers in `value`: one answer, a list, or a list as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return value if isinstance(value, list) else [value]


def _answer(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("answer")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value)
    return _encodable(value.strip()) if isinstance(value, str) else ""


def label_text(value: Any) -> str:
    """Return a value as a short text, such as an id or a kind. A list is joined by commas."""
    if isinstance(value, list):
        return ", ".join(map(label_text, value))
    return "" if value is None else _encodable(str(value).strip())


def _encodable(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Refused("unreadable", "a text is not UTF-8")
    return text
