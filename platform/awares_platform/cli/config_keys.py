"""`awares config [section]` lists every configuration key with its type, default and help.

The keys come from the pydantic models of the sections.
"""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.config.base import nearest

WIDTH = 100
_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key of the configuration.

    Example:
        ConfigKey("grpo.steps", "whole number > 0", 120, "Number of learner steps. ...")
    """

    key: str
    """Dotted name of the key."""
    type: str
    """Type and bounds in words."""
    default: Any
    """A JSON value."""
    help: str
    """Help text."""


def keys(within: str = "") -> list[ConfigKey]:
    """Return the keys of the section `within`, or only the key `within`. "" returns all keys.

    Raises ConfigError if no section or key has the name `within`. The error suggests the most
    similar name.
    """
    known = list(_keys(PlatformConfig, "", PlatformConfig().model_dump(mode="json")))
    found = [key for key in known if not within or f"{key.key}.".startswith(f"{within}.")]
    if not found:
        sections = list(PlatformConfig.model_fields)
        near = nearest(within, [*sections, *(key.key for key in known)])
        raise ConfigError(
            f"{within}: no such section or key; the nearest is {near}. "
            f"The sections are {', '.join(sections)}"
        )
    return found


def _keys(model: type[BaseModel], prefix: str, defaults: Mapping[str, Any]) -> Iterator[ConfigKey]:
    for name, field in model.model_fields.items():
        kind, default = field.annotation, defaults[name]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.", default)
        else:
            text = " ".join((field.description or "").split())
            yield ConfigKey(f"{prefix}{name}", kind_of(field), default, text)


def kind_of(field: FieldInfo) -> str:
    """Return the type of a field in words, with its bounds.

    Example:
        kind_of(EngineConfig.model_fields["kv_cache_gib"])  # "number > 0, or none"
    """
    parts = get_args(field.annotation)
    optional = NoneType in parts
    kind = next(part for part in parts if part is not NoneType) if optional else field.annotation
    bounds = [
        f"{sign} {getattr(part, name):.12g}"
        for part in field.metadata
        for name, sign in _BOUNDS.items()
        if getattr(part, name, None) is not None
    ]
    words = f"{_kind(kind)} {' and '.join(bounds)}".strip()
    return f"{words}, or none" if optional else words


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in arguments)
    if origin is tuple:
        return f"list, each {_kind(arguments[0])}"
    return "table" if origin is dict else _KINDS[annotation]


def render(found: Sequence[ConfigKey]) -> str:
    """Return the keys as text for the terminal, in lines of at most `WIDTH` columns."""
    width = min(shutil.get_terminal_size().columns, WIDTH)
    lines: list[str] = []
    section = ""
    for one in found:
        if one.key.partition(".")[0] != section:
            section = one.key.partition(".")[0]
            lines += ["", f"[{section}]"]
        default = "none" if one.default is None else json.dumps(one.default, ensure_ascii=False)
        head = f"{one.key} = {default}   ({one.type})"
        lines += textwrap.wrap(head, width, initial_indent="  ", subsequent_indent="      ")
        lines += textwrap.wrap(one.help, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines[1:])
