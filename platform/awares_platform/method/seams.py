"""Builds a part, such as the reward, from a setting that names the part as `module:attribute`.

The attribute is imported and called, and the result is checked against a Protocol. A mistake raises
one clear error.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar, cast

from awares.errors import ConfigError

Part = TypeVar("Part")


def build(
    reference: str,
    protocol: type[Part],
    key: str,
    offered: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Part:
    """Build the part that `reference` names and check that it has all members of `protocol`.

    `key` is the configuration key of `reference`. All `settings` become arguments. `offered` values
    fill the other parameters.

    Raises ConfigError if the part cannot be imported or built, or lacks a member.

    Example:
        build("my_rewards:Anls", Reward, "method.reward", {"alpha_use": 0.25}, {"floor": 0.5})
    """
    factory, arguments = _prepared(reference, key, offered, settings)
    try:
        part = factory(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key} = {reference!r} cannot be built: {error}") from error
    missing = [name for name in _members(protocol) if not hasattr(part, name)]
    if missing:
        raise ConfigError(
            f"{key} = {reference!r} is no {protocol.__name__}: it lacks {', '.join(missing)}"
        )
    return cast(Part, part)


def check(
    reference: str, key: str, offered: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Import the part that `reference` names and check its arguments, without building the part.

    Jobs call this function before an engine starts.

    Raises ConfigError if the part cannot be imported or does not take the arguments.

    Example:
        check("my_rewards:Anls", "method.reward", {"alpha_use": 0.25}, {"floor": 0.5})
    """
    _prepared(reference, key, offered, settings)


def _prepared(
    reference: str, key: str, offered: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the attribute that builds the part, and the arguments for it."""
    factory = _attribute(reference, key)
    arguments = _arguments(factory, reference, key, offered, settings)
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{key} = {reference!r} cannot be built: {error}; set it in {key}_settings"
        ) from error
    return factory, arguments


def _attribute(reference: str, key: str) -> Callable[..., Any]:
    module, separator, name = reference.partition(":")
    if not (module and separator and name):
        raise ConfigError(f"{key} = {reference!r}: write it as module:attribute")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"{key} = {reference!r}: {module} cannot be imported ({error}); "
            "install it on every node, or put it on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"{key} = {reference!r}: {module} has no {name!r}") from error
    if not callable(found):
        raise ConfigError(f"{key} = {reference!r} is no class and no function")
    return found


def _arguments(
    factory: Callable[..., Any],
    reference: str,
    key: str,
    offered: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if unknown := [name for name in settings if name not in parameters and not takes_any]:
        known = ", ".join(parameters) or "nothing"
        raise ConfigError(f"{key}_settings.{unknown[0]}: {reference} takes {known}")
    return {name: offered[name] for name in parameters if name in offered} | dict(settings)


def _members(protocol: type) -> list[str]:
    """Return the public members of a Protocol, and `__call__` if the Protocol defines it."""
    annotated = [name for base in protocol.__mro__ for name in getattr(base, "__annotations__", ())]
    named = {name for base in protocol.__mro__ if base is not object for name in vars(base)}
    found = {name for name in {*annotated, *named} if not name.startswith("_")}
    return sorted(found | ({"__call__"} & named))
