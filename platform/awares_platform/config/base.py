"""The base class of the configuration sections, and the search for a mistyped key."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, WithJsonSchema, model_validator

Table = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "additionalProperties": {}})]
"""A table with keys that this package does not know: the arguments of a part that a user brings."""


class Section(BaseModel):
    """A frozen set of settings. An attribute's docstring is its help text.

    Unknown keys are refused.
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

    @classmethod
    def _takes_none(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and type(None) in get_args(field.annotation)


def nearest(key: str, valid: Iterable[str]) -> str:
    """The valid dotted key that is most similar to `key`.

    A key with the same last part comes first, in any section.

    Example:
        nearest("grpo.lerning_rate", ["grpo.learning_rate", "grpo.beta"])  # "grpo.learning_rate"
    """

    def likeness(candidate: str) -> tuple[bool, float]:
        same_name = candidate.rpartition(".")[2] == key.rpartition(".")[2]
        return same_name, difflib.SequenceMatcher(None, key, candidate).ratio()

    return max(valid, key=likeness)
