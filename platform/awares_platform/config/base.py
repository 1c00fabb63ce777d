"""The base of every configuration section, and the error messages that they share."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, WithJsonSchema, model_validator

Table = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "additionalProperties": {}})]
"""A table with keys that this package does not know: the arguments of a part that a user brings."""


class Section(BaseModel):
    """A frozen set of settings. Unknown keys are refused; each attribute's docstring is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def none_is_written_as_text(cls, values: Any) -> Any:
        """TOML has no null: "none" stands for it where a key takes None."""
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
    """The valid dotted key most like `key`. A key with the same last part, under whatever section, comes first.

    Example:
        nearest("grpo.lerning_rate", ["grpo.learning_rate", "grpo.beta"])  # "grpo.learning_rate"
    """

    def likeness(candidate: str) -> tuple[bool, float]:
        same_name = candidate.rpartition(".")[2] == key.rpartition(".")[2]
        return same_name, difflib.SequenceMatcher(None, key, candidate).ratio()

    return max(valid, key=likeness)
