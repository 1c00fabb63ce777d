"""Evaluates label and field selectors in requests, and label selectors in objects."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Body = dict[str, Any]
_SET = re.compile(r"(?P<key>\S+)\s+(?P<verb>in|notin)\s+\((?P<values>[^)]*)\)")
_TERMS = re.compile(r",(?![^(]*\))")


def accepting(labels: str = "", fields: str = "") -> Callable[[Body], bool]:
    """Return a predicate that says whether an object matches both selectors of a request."""
    label_terms = [term.strip() for term in _TERMS.split(labels) if term.strip()]
    field_terms = [term.strip() for term in fields.split(",") if term.strip()]

    def accept(body: Body) -> bool:
        found = body["metadata"].get("labels") or {}
        return all(_label(term, found) for term in label_terms) and all(
            _field(term, body) for term in field_terms
        )

    return accept


def matches(selector: Mapping[str, str], body: Body) -> bool:
    """Return whether an object has every label of `selector`. An empty selector selects nothing."""
    labels = body["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def _label(term: str, labels: Mapping[str, str]) -> bool:
    if found := _SET.fullmatch(term):
        values = {value.strip() for value in found["values"].split(",")}
        return (labels.get(found["key"]) in values) == (found["verb"] == "in")
    if "!=" in term:
        key, value = term.split("!=", 1)
        return labels.get(key.strip()) != value.strip()
    if "=" in term:
        key, value = re.split("==?", term, maxsplit=1)
        return labels.get(key.strip()) == value.strip()
    return term[1:] not in labels if term.startswith("!") else term in labels


def _field(term: str, body: Body) -> bool:
    key, value = re.split("!?==?", term, maxsplit=1)
    found: Any = body
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return (str(found or "") == value) != ("!=" in term)
