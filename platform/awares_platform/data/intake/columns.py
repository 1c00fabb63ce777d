"""Decides which column of a source holds the image, the question, the answer and further values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awares.errors import ConfigError
from awares_platform.config.base import nearest
from awares_platform.config.imports import ImportsConfig
from awares_platform.data.intake.annotations import turns_column

_GUESSES = {
    "image": (
        "image images img image_path image_file file_name filename picture page "
        "jpg jpeg png webp image_url url path file"
    ),
    "question": "question query problem prompt instruction text txt",
    "answer": "answers answer original_answer label labels solution response output cls target",
    "boxes": "boxes bboxes bbox box evidence",
    "sample_id": "sample_id question_id questionid id qid __key__",
    "kind": "kind question_type question_types type category human_or_machine",
}
"""Maps each field of SourceColumns to likely column names, the most reliable name first."""
REQUIRED = ("image", "question", "answer")
TURNS = "turns:"
"""Prefix that marks a column name in SourceColumns if the column holds a conversation."""


@dataclass(frozen=True, slots=True)
class SourceColumns:
    """For each field of a sample, the name of the source's column, or "" if there is none.

    Example:
        SourceColumns("image", "query", "label", "", "", "human_or_machine", "")
    """

    image: str
    question: str
    answer: str
    boxes: str
    sample_id: str
    kind: str
    scorer: str

    def __str__(self) -> str:
        named = [(name, getattr(self, name)) for name in self.__slots__]
        return ", ".join(f"{name}={column}" for name, column in named if column)


def choose_columns(settings: ImportsConfig, records: Sequence[Mapping[str, Any]]) -> SourceColumns:
    """Return the columns that the settings name, and guess the others from `records`.

    Raises ConfigError if a named column is missing, or if a required column cannot be guessed.
    """
    found = _kinds(records)
    chosen = {name: _chosen(name, getattr(settings, name), found) for name in _GUESSES}
    turns = next(filter(None, map(turns_column, records)), None)
    if turns and not settings.question and not settings.answer:
        chosen |= {"question": f"{TURNS}{turns}", "answer": f"{TURNS}{turns}"}
    if missing := [name for name in REQUIRED if not chosen[name]]:
        raise ConfigError(
            f"no column is known to hold the {missing[0]}: name it with --{missing[0]}. "
            f"The columns are {_listed(found)}"
        )
    scorer = _chosen("scorer_column", settings.scorer_column, found)
    return SourceColumns(**chosen, scorer=scorer)


def _kinds(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the kind of each column's values, such as text or bytes."""
    found: dict[str, str] = {}
    for record in records:
        for name, value in record.items():
            if found.get(name) in (None, "empty"):
                found[name] = _kind(value)
    return found


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    named = {str: "text", bytes: "bytes", list: "list", dict: "table", bool: "true or false"}
    return named.get(type(value), "number")


def _chosen(name: str, wanted: str, found: Mapping[str, str]) -> str:
    if wanted:
        if wanted.partition(".")[0] not in found and wanted not in found:
            near = nearest(wanted, found) if found else "none"
            raise ConfigError(
                f"the source has no column {wanted!r} for imports.{name}; the nearest is {near}. "
                f"The columns are {_listed(found)}"
            )
        return wanted
    lower = {column.lower(): column for column in [*found][::-1]}
    guesses = _GUESSES.get(name, "").split()
    return next((lower[guess] for guess in guesses if guess in lower), "")


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in found.items()) or "none"


def value_at(record: Mapping[str, Any], column: str) -> Any:
    """Return the value in a column, or None. The name "a.b" means the key "b" in the column "a"."""
    if column in record or not column:
        return record.get(column)
    value: Any = record
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
