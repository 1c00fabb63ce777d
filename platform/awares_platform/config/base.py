"""Defines the base class of configuration sections, and finds the valid key nearest to a typo."""

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

Table = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "additionalProperties": {}})]
"""A table of arguments for a class or function that a user brings. It may hold any key."""


class Section(BaseModel):
    """A frozen set of settings. It refuses unknown keys.

    The docstring of an attribute is the help text of the setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def none_is_written_as_text(cls, values: Any) -> Any:
        """Read "none" as None for a key that may be None, because TOML has no null."""
        if not isinstance(values, dict):
            return values
        return {
            key: None if value == "none" and cls._takes_none(key) else value
            for key, value in values.items()
        }

    @field_validator("*", mode="before")
    @classmethod
    def values_have_the_kind_of_their_key(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a value that pydantic would silently convert to the type of the key.

        Also refuse infinite numbers, and an empty text for a key whose default is not empty.
        """
        assert info.field_name is not None, "a field validator has a field"
        if right := _refusal(cls.model_fields[info.field_name], value):
            raise ValueError(right)
        return value

    @classmethod
    def _takes_none(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and type(None) in get_args(field.annotation)


def _refusal(field: FieldInfo, value: Any) -> str | None:
    """Return advice on what to write instead of `value`, or None if `field` allows `value`."""
    kind = field.annotation
    kinds = (kind,) if get_origin(kind) in (None, tuple, Literal) else get_args(kind)
    example = "" if field.default in (None, "", ()) else f", such as {field.default}"
    if bool in kinds:
        return None if isinstance(value, bool) else "write true or false"
    wrong = isinstance(value, (bool, str)) or _is_infinite(value)
    if int in kinds and wrong:
        return f"write a whole number{example}"
    if float in kinds and wrong:
        return f"write a finite number{example}"
    if get_origin(kind) is Literal and isinstance(value, bool):
        return f"write one of {', '.join(map(repr, get_args(kind)))}"
    if {str, Path} & set(kinds) and _is_blank(value) and field.default != "":
        return f"write a text that is not empty{example}"
    texts = value if get_origin(kind) is tuple and isinstance(value, (list, tuple)) else ()
    if any(map(_is_blank, texts)):
        return "write a list of texts that are not empty"
    return None


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def without_added(settings: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` without the keys that have the same value in `added`.

    `added` maps keys of newer versions to values that change nothing. Without these keys, the
    settings equal those that an older version has stored.

    Example:
        without_added({"judge": "match", "form": "compare"}, {"form": "compare"})
        # {"judge": "match"}
    """
    return {
        key: value for key, value in settings.items() if key not in added or value != added[key]
    }


def nearest(key: str, valid: Iterable[str]) -> str:
    """Return the valid dotted key that is most similar to `key`.

    Keys with the same last part as `key` come first, even if they are in another section.

    Example:
        nearest("grpo.lerning_rate", ["grpo.learning_rate", "grpo.beta"])  # "grpo.learning_rate"
    """

    def likeness(candidate: str) -> tuple[bool, float]:
        same_name = candidate.rpartition(".")[2] == key.rpartition(".")[2]
        return same_name, difflib.SequenceMatcher(None, key, candidate).ratio()

    return max(valid, key=likeness)
