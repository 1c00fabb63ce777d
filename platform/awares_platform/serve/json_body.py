"""Parses the JSON body of a request strictly and in bounded time and memory."""

import json
import math
import re
from typing import Any, NoReturn

from awares_platform.serve.errors import RequestError

MOST_VALUES = 20_000
"""The largest number of values in a body. A request with many images has far fewer."""


_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Matches a JSON string, even if its closing quote is missing. A search thus takes linear time."""


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request body.

    Raises RequestError if the body is no JSON object, holds over `MOST_VALUES` values, holds a
    number that a float cannot represent, or holds text that UTF-8 cannot encode.
    """
    # `_marks` is fast, but counts characters inside strings, too. Only a body with a high count
    # therefore gets the slow, exact test.
    if _marks(body, 0, len(body)) > MOST_VALUES and _has_too_many_values(body):
        raise RequestError(f"the body holds over {MOST_VALUES} values; send fewer", status=413)
    try:
        parsed = json.loads(body.decode("utf-8"), parse_float=_float, parse_constant=_constant)
        # Only an escape sequence (\u) can produce a lone surrogate, which UTF-8 cannot encode.
        if b"\\u" in body:
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except RequestError:
        raise
    except UnicodeDecodeError as error:
        raise RequestError(f"Invalid JSON: the body is not UTF-8: {error.reason}") from None
    except UnicodeEncodeError:
        raise RequestError("Invalid JSON: the text holds half of a surrogate pair") from None
    except RecursionError:
        raise RequestError("Invalid JSON: the values are nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"Invalid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise RequestError('Invalid JSON: expected an object such as {"model": ...}')
    return parsed


def _has_too_many_values(body: bytes) -> bool:
    """Return whether the body holds over `MOST_VALUES` values. Stop counting at the limit.

    Count the marks `,`, `[` and `{` outside strings. Count the strings too: a value contributes at
    most two strings, its key and itself.
    """
    found, end = 0, 0
    for texts, text in enumerate(_TEXT.finditer(body)):
        found += _marks(body, end, text.start())
        end = text.end()
        if found > MOST_VALUES or texts > 2 * MOST_VALUES:
            return True
    return found + _marks(body, end, len(body)) > MOST_VALUES


def _marks(body: bytes, start: int, end: int) -> int:
    """Count the marks `,`, `[` and `{` in a slice. JSON with N values has at least N - 1 marks."""
    return sum(body.count(mark, start, end) for mark in (b",", b"[", b"{"))


def _float(text: str) -> float:
    value = float(text)
    significand = text.lower().partition("e")[0]
    if not math.isfinite(value) or (
        value == 0 and any(digit in "123456789" for digit in significand)
    ):
        raise RequestError(f"the number {text[:40]} is outside the range of a float")
    return value


def _constant(text: str) -> NoReturn:
    raise RequestError(f"Invalid JSON: {text} is no number of JSON")
