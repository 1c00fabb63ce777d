"""Reads the verdict 0, 1 or 2 out of the reply of a judge that is a language model.

The first pattern of this list that the reply contains decides. Contradictions make the reply
unreadable.

1. a JSON object with a key such as "verdict", "score" or "digit"
2. a marked digit, such as "Digit: 2", "\\boxed{2}" or "I choose 2"
3. a reply that is only a digit, or whose last line or last clause is only a digit
4. a digit that starts the reply, if a sentence follows it
5. "answer 2 is better", without a negation
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from awares.labels import Verdict
from awares_platform.method.spoken import spoken, unreadable

_WHO = "judge"
_DIGITS = {str(int(verdict)) for verdict in Verdict}
_KEYS = ("verdict", "digit", "score", "choice", "answer", "result", "rating", "label")
_DIGIT = r"(?<![\d.,+\-])([012])(?:\.0+)?(?![\d%]|[.,]\d)"
_OR = r"(?!\s*(?:or|and|to|/|,|-)\s*\d)"
_MARK = (
    r"(?:verdict|digit|score|choice|rating|result|final answer|(?<!\d )answer)\s*(?:is|=|:)\s*"
    r"|\b(?:choose|chose|pick|select|prefer|vote for)\s+(?:answer\s+)?"
    r"|\\boxed\s*\{\s*|<answer>\s*"
)
_MARKED = re.compile(rf"(?:{_MARK})[\"'(\[]?{_DIGIT}{_OR}", re.IGNORECASE)
_ALONE = re.compile(rf"\W*?{_DIGIT}\W*")
_LAST_CLAUSE = re.compile(
    rf"(?:[:=]|\bso|\bthus|\btherefore,?)\s*{_DIGIT}\s*\.?\s*$", re.IGNORECASE
)
_FIRST = re.compile(rf"{_DIGIT}(?:\s*[.:;)\u2013\u2014]\s+|\s*,\s+[a-z]|\s+\(|\s+[A-Z]|\s*\n)")
_NUMBERED = re.compile(r"^\s*[0-9]\s*[.)]\s", re.MULTILINE)
_BETTER = re.compile(rf"\banswer {_DIGIT} is (?:clearly |the )?(?:better|best)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|cannot|neither|nor|no)\b|n't\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
# Matches text that repeats the question, such as "Answer 1: 2". Its digits are no verdict.
_ECHO = re.compile(r"(?:reference )?answer(?: \d)?\s*:", re.IGNORECASE)


def read_verdict(reply: str | None) -> Verdict:
    """Return the verdict of a judge's reply. `reply` is None if the message has no content.

    Raises Unreadable if the reply states no verdict, or different ones.

    Example:
        read_verdict("<think>41 is wrong</think> **2**")  # Verdict.FULL
    """
    text = spoken(reply, _WHO).replace("*", "").replace("`", "").strip()
    statements = _statements(text)
    for found in statements:
        if len(set(found)) == 1 and found[0] in _DIGITS:
            return Verdict(int(found[0]))
        if found:
            break
    raise unreadable(text, _WHO, "a verdict 0, 1 or 2")


def _statements(text: str) -> Iterable[list[str]]:
    """Yield a list for each kind of statement: the digits of these statements in `text`.

    The most reliable kind comes first.
    """
    yield _of_object(text)
    yield _affirmed(_MARKED, text)
    last = text.splitlines()[-1] if text else ""
    clause = [] if _ECHO.match(last) else _LAST_CLAUSE.findall(last)
    yield [*_whole(_ALONE, text), *_whole(_ALONE, last), *clause]
    listed = len(_NUMBERED.findall(text)) > 1
    first = _FIRST.match(text)
    yield [first[1]] if first and not listed else []
    yield _affirmed(_BETTER, text)


def _affirmed(pattern: re.Pattern[str], text: str) -> list[str]:
    """Return the digits that `pattern` finds in the sentences without a negation."""
    sentences = (part for part in _SENTENCE_END.split(text) if not _NEGATION.search(part))
    return [digit for sentence in sentences for digit in pattern.findall(sentence)]


def _whole(pattern: re.Pattern[str], text: str) -> list[str]:
    """Return the digit if `pattern` matches all of `text`, and otherwise no digit."""
    found = pattern.fullmatch(text)
    return [found[1]] if found else []


def _of_object(text: str) -> list[str]:
    """Return the digits under the known keys of the first JSON object in `text`."""
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
    return [_digit(values[key]) for key in _KEYS if key in values]


def _digit(value: Any) -> str:
    """Return the digit of a JSON value, or "" if the value is no verdict."""
    alone = [] if isinstance(value, bool) else _whole(_ALONE, str(value))
    return alone[0] if alone else ""
