"""Translates a JSON schema into a grammar. The engine samples only answers that obey the grammar.

The grammar allows no optional whitespace. An unsure policy might write whitespace without end.
"""

import json
from collections.abc import Iterator
from typing import Any

from awares_platform.serve.errors import RequestError

_PARAM = "response_format.json_schema.schema"
_MOST_CHARACTERS = 16_384
_MOST_LEVELS = 64
"""The largest nesting depth of a schema. A grammar's size grows with the square of the depth."""
_IGNORED = {
    *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"),
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas"),
    *("unevaluatedItems", "unevaluatedProperties"),
}
"""Keywords that xgrammar would ignore silently."""
_NAMES = {"properties", "patternProperties", "$defs", "definitions"}
"""Keywords whose values are objects that map names to schemas. These names are no keywords."""
_DATA = {"enum", "const", "default", "examples"}
"""Keywords whose values are data, and not schemas."""


def json_grammar(schema: dict[str, Any]) -> str:
    """Return the EBNF grammar of all JSON documents that obey `schema`.

    Raises RequestError if the schema is too long, too deep, or cannot be enforced. The error names
    the reason.
    """
    import xgrammar

    text = json.dumps(schema)
    if len(text) > _MOST_CHARACTERS:
        limit = f"{_PARAM} has {len(text)} characters; the limit is {_MOST_CHARACTERS}"
        raise RequestError(limit, param=_PARAM)
    if _levels(schema) > _MOST_LEVELS:
        limit = f"{_PARAM} has over {_MOST_LEVELS} levels of lists and objects; use fewer"
        raise RequestError(limit, param=_PARAM)
    if ignored := _IGNORED.intersection(_keywords(schema)):
        reason = f"{', '.join(sorted(ignored))} is not supported; leave it out"
        raise RequestError(f"{_PARAM} cannot be enforced: {reason}", param=_PARAM)
    if any(isinstance(at, str) and at[:1] != "#" for at in _references(schema)):
        reason = "$ref must begin with #, because no other document is read"
        raise RequestError(f"{_PARAM} cannot be enforced: {reason}", param=_PARAM)
    try:
        return str(xgrammar.Grammar.from_json_schema(text, any_whitespace=False))
    # xgrammar documents no exception types, and any failure makes the schema unusable.
    except Exception as error:
        raise RequestError(f"{_PARAM} cannot be enforced: {error}", param=_PARAM) from None


def _levels(value: Any) -> int:
    """Return the number of levels of nested lists and objects. Stop counting over the limit."""
    inner, levels = [value], 0
    while levels <= _MOST_LEVELS and (
        inner := [one for one in inner if isinstance(one, dict | list)]
    ):
        levels += 1
        inner = [each for one in inner for each in (one.values() if isinstance(one, dict) else one)]
    return levels


def _references(value: Any) -> Iterator[Any]:
    """Yield the values of all keys `$ref` in a schema."""
    if isinstance(value, list):
        for one in value:
            yield from _references(one)
    if isinstance(value, dict):
        yield from (one for key, one in value.items() if key == "$ref")
        yield from _references([*value.values()])


def _keywords(schema: Any) -> Iterator[str]:
    """Yield the keywords of a schema and of all schemas in it."""
    if isinstance(schema, list):
        for one in schema:
            yield from _keywords(one)
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        yield key
        if key in _NAMES and isinstance(value, dict):
            yield from _keywords([*value.values()])
        elif key not in _DATA:
            yield from _keywords(value)
