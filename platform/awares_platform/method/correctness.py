"""Reads "right" or "wrong" out of the reply of a judge that judges one answer alone.

The first pattern of this list that the reply contains decides. Contradictions make the reply
unreadable.

1. a JSON object with a key such as "right", "correct" or "verdict"
2. a marked word, such as "Verdict: wrong" or "\\boxed{right}"
3. a reply that is only a word, or whose last line is only a word
4. a word that starts the reply, if a sentence follows it
5. "the answer is correct", also with a negation
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from awares_platform.method.spoken import spoken, unreadable

_WHO = "judge"
_RIGHT = frozenset({"right", "correct", "true", "yes", "1"})
_WRONG = frozenset({"wrong", "incorrect", "false", "no", "0"})
_KEYS = ("right", "correct", "is_right", "is_correct", "verdict", "result", "judgement", "label")
_WORD = r"(right|correct|true|yes|wrong|incorrect|false|no|[01](?![\d.,%]))\b"
_MARKED = re.compile(
    rf"(?:\b(?:verdict|judge?ment|right|correct|result)\s*[:=]\s*|\\boxed\s*\{{\s*|<answer>\s*)"
    rf"[\"'(\[]?{_WORD}",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\W*{_WORD}\W*", re.IGNORECASE)
_FIRST = re.compile(rf"{_WORD}\s*(?:[.:;,!\u2013\u2014-]\s|\n|\()", re.IGNORECASE)
_SAID = re.compile(rf"\banswer is (not |in fact |clearly )?{_WORD}", re.IGNORECASE)


def read_correctness(reply: str | None) -> bool:
    """Return whether a judge's reply says that the answer is right.

    `reply` is None if the message has no content. Raises Unreadable if the reply says neither, or
    both.

    Example:
        read_correctness('<think>42 is 42</think> {"right": true}')  # True
    """
    text = spoken(reply, _WHO).replace("*", "").replace("`", "").strip()
    for found in _statements(text):
        if len(set(found)) == 1 and found[0] is not None:
            return found[0]
        if found:
            break
    raise unreadable(text, _WHO, '"right" or "wrong"')


def _statements(text: str) -> Iterable[list[bool | None]]:
    """Yield a list for each kind of statement: the meanings of these statements in `text`.

    The most reliable kind comes first.
    """
    yield _of_object(text)
    yield [_meaning(word) for word in _MARKED.findall(text)]
    alone = [_ALONE.fullmatch(part) for part in (text, *text.splitlines()[-1:])]
    yield [_meaning(found[1]) for found in alone if found]
    first = _FIRST.match(text)
    yield [_meaning(first[1])] if first else []
    yield [_said(negation, word) for negation, word in _SAID.findall(text)]


def _said(negation: str, word: str) -> bool | None:
    """Return the meaning of a phrase such as "is not correct", or None for "is not wrong"."""
    meaning = _meaning(word)
    if negation.strip().lower() != "not":
        return meaning
    return False if meaning else None


def _meaning(value: Any) -> bool | None:
    word = str(value).strip().lower()
    return True if word in _RIGHT else False if word in _WRONG else None


def _of_object(text: str) -> list[bool | None]:
    """Return the meanings of the values under known keys of the first JSON object in `text`."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return []
    try:
        found = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, dict):
        return []
    values = {str(key).lower(): value for key, value in found.items()}
    return [_meaning(values[key]) for key in _KEYS if key in values]
