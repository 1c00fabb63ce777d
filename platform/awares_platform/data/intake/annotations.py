"""Converts common formats of annotations into records.

- COCO: the annotations of a file refer to its images by ids.
- LLaVA and chats: a record has turns instead of a question and an answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TURNS = ("conversations", "messages", "texts")
"""The names that a column with turns can have."""
_ASKERS = ("human", "user")
_ANSWERERS = ("gpt", "assistant", "model", "bot")
_IMAGE_MARK = "<image>"


def from_json(content: Any) -> Iterator[Any]:
    """Yield the records of a JSON file: a list, a COCO file, or a dict with one list of records.

    Raises ValueError if the content has no list of records.
    """
    if isinstance(content, list):
        return iter(content)
    lists = _lists(content)
    if {"images", "annotations"} <= lists.keys():
        return _coco(lists["images"], lists["annotations"])
    if len(lists) == 1:
        return iter(next(iter(lists.values())))
    raise ValueError(f"it has no list of records, or several: {', '.join(lists) or 'none'}")


def _lists(content: Any) -> dict[str, list[Any]]:
    entries = content.items() if isinstance(content, dict) else ()
    return {
        name: value
        for name, value in entries
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }


def _coco(images: Sequence[Any], annotations: Sequence[Any]) -> Iterator[Any]:
    by_id = {image.get("id"): image for image in images if isinstance(image, dict)}
    for one in annotations:
        image = by_id.get(one.get("image_id"), {}) if isinstance(one, dict) else None
        yield one if image is None else {**_corners(one), "image": image.get("file_name")}


def _corners(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the key "bbox" (left, top, width, height) by the key "boxes" with corners."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return dict(annotation)
    try:
        left, top, width, height = map(float, box)
    except (TypeError, ValueError):
        return dict(annotation)
    rest = {name: value for name, value in annotation.items() if name != "bbox"}
    return {**rest, "boxes": [[left, top, left + width, top + height]]}


def turns_column(record: Mapping[str, Any]) -> str | None:
    """Return the column that holds the turns of a conversation, or None."""
    for name in _TURNS:
        value = record.get(name)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return name
    return None


def questions(turns: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield each question of a conversation with the answer that follows it.

    Example:
        list(questions([{"user": "<image>\\nWhy?", "assistant": "Rain."}]))  # [("Why?", "Rain.")]
    """
    asked: str | None = None
    for turn in turns:
        if not isinstance(turn, dict):
            continue
        if "user" in turn and "assistant" in turn:
            yield _text(turn["user"]), _text(turn["assistant"])
            continue
        who = str(turn.get("from", turn.get("role", ""))).lower()
        said = _text(turn.get("value", turn.get("content")))
        if who in _ASKERS:
            asked = said
        elif who in _ANSWERERS and asked is not None:
            yield asked, said
            asked = None


def _text(content: Any) -> str:
    """Return the text of a turn, without the placeholders "<image>"."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    return content.replace(_IMAGE_MARK, "").strip() if isinstance(content, str) else ""
