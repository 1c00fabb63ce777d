"""Reads a setup, which consists of all configuration sections.

`load` reads a TOML file, or a shipped setup by its name, and applies overrides such as
grpo.learning_rate=1e-5. A file may extend a shipped setup: extends = "awares-7b". A job writes the
resulting PlatformConfig to <run>/<job>/config.json.

The directory setups/ beside this package is a link to jobs/configs. A wheel contains copies of
these files instead of the link.

A mistake in a setup raises a ConfigError that names the key. If the key is unknown, the error
suggests a similar valid key.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import ErrorDetails

from awares.errors import ConfigError
from awares_platform.config.base import Section, nearest
from awares_platform.config.curate import CurateConfig
from awares_platform.config.data import DataConfig
from awares_platform.config.engine import EngineConfig
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.imports import ImportsConfig
from awares_platform.config.largest_request import largest_request
from awares_platform.config.method import MethodConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.run import RunConfig
from awares_platform.config.serve import ServeConfig
from awares_platform.config.sft import SftConfig
from awares_platform.config.store import StoreConfig
from awares_platform.config.tracking import TrackingConfig


class PlatformConfig(Section):
    """All settings of a job. Each section's defaults are the values of the mini setup."""

    run: RunConfig = RunConfig()
    store: StoreConfig = StoreConfig()
    policy: PolicyConfig = PolicyConfig()
    method: MethodConfig = MethodConfig()
    data: DataConfig = DataConfig()
    imports: ImportsConfig = ImportsConfig()
    engine: EngineConfig = EngineConfig()
    curate: CurateConfig = CurateConfig()
    sft: SftConfig = SftConfig()
    grpo: GrpoConfig = GrpoConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def the_largest_request_fits_the_engine(self) -> Self:
        """Refuse a setup in which a request within the budget exceeds the engine's limits."""
        jobs = {"grpo": self.grpo, "evaluate": self.evaluate, "serve": self.serve}
        limits = {f"{name}.max_tokens": job.max_tokens for name, job in jobs.items()}
        if fault := largest_request(self.method, self.engine, limits):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def a_restoring_guard_has_validated_versions(self) -> Self:
        """Refuse the action "restore-best" in a run that validates no version."""
        for key in self.grpo.guards.restoring:
            if not (self.grpo.validation.every and self.data.held_out):
                raise ValueError(
                    f'grpo.guards.{key}="restore-best" needs validated versions: set '
                    "grpo.validation.every and data.held_out above 0"
                )
        return self


def load(path: str | Path, overrides: Sequence[str] = ()) -> PlatformConfig:
    """Read the setup at `path` and apply `overrides` of the form "section.key=value".

    `path` is a TOML file, a run's config.json, or the name of a shipped setup. Raises ConfigError
    for an unreadable file or a wrong key or value.

    Example:
        load("mini", ["grpo.learning_rate=1e-5"])
    """
    settings = _extended(Path(path))
    for override in overrides:
        _apply(settings, override)
    try:
        return PlatformConfig.model_validate(settings)
    except ValidationError as error:
        lines = [f"{path}: {_explain(detail)}" for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def shipped() -> dict[str, Path]:
    """Map the name of each setup that comes with the package to its path."""
    directory = Path(__file__).parent.parent / "setups"
    return {path.stem: path for path in sorted(directory.glob("*.toml"), key=lambda at: at.stem)}


def _located(path: Path) -> Path:
    """Return the file to read for `path`, which may be the name of a shipped setup.

    jobs/configs/<name>.toml also names a shipped setup if no such file exists.
    """
    setups = shipped()
    if str(path) in setups:
        return setups[str(path)]
    if path.parent == Path("jobs/configs") and path.suffix == ".toml" and not path.exists():
        return setups.get(path.stem, path)
    return path


def _extended(path: Path) -> dict[str, Any]:
    """Return the settings of the file `path`, merged over the setup that the file extends.

    The key `extends` at the top of a file names a shipped setup. That setup must not extend another
    one.
    """
    settings = _read(path)
    base = settings.pop("extends", None)
    if base is None:
        return settings
    if base not in shipped():
        raise ConfigError(
            f"{path}: extends = {base!r} is no setup that comes with awares: {', '.join(shipped())}"
        )
    return _merged(_read(Path(base)), settings)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below`, overridden by the values of `above`. Tables are merged key by key."""
    both = {key: below[key] for key in above if isinstance(above[key], dict) and key in below}
    tables = {
        key: _merged(value, above[key]) for key, value in both.items() if isinstance(value, dict)
    }
    return below | above | tables


def _read(path: Path) -> dict[str, Any]:
    try:
        # Some Windows editors write a byte order mark at the start of a file; utf-8-sig skips it.
        text = _located(path).read_text("utf-8-sig")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; give --config a TOML file, or a setup that comes with "
            f"awares: {', '.join(shipped())}"
        ) from None
    except ValueError as error:
        kind = path.suffix.lstrip(".").upper() or "TOML"
        raise ConfigError(f"{path}: is not valid {kind}: {error}") from None


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set one dotted key in `settings`. The later validation reports an unknown key."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2:
        raise ConfigError(
            f"override {override!r}: write section.key=value, such as grpo.learning_rate=1e-5"
        )
    for part in parts[:-1]:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"override {override!r}: {part!r} has no keys below it")
    settings[parts[-1]] = _value(text.strip(), _annotation(parts))


def _value(text: str, annotation: Any) -> Any:
    """Parse `text` as a TOML value.

    The result is `text` itself if it is not TOML or if the key holds text.
    """
    if annotation in (str, str | None, Path) and not text.startswith(('"', "'")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _annotation(parts: Sequence[str]) -> Any:
    """Return the declared type of a dotted key, or None for an unknown key."""
    model: Any = PlatformConfig
    for part in parts:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        field = model.model_fields.get(part)
        if field is None:
            return None
        model = field.annotation
    return model


_REMEDIES = {
    "tuple_type": 'write a list in TOML, such as ["a", "b"]',
    "dict_type": 'write a table in TOML, such as {a = "b"}',
    "int_from_float": "write a whole number",
}
"""Maps pydantic's type of an error to advice on what to write."""


def _explain(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key; the nearest is {nearest(key, _candidates(detail['loc']))}"
    message = _REMEDIES.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    return (
        message if message.startswith(key) else f"{key}: {message}; got {_shown(detail['input'])}"
    )


def _shown(value: Any) -> str:
    """Return a boolean as TOML writes it, and the repr of any other value."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _candidates(loc: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys that an error may suggest instead of an unknown key.

    `loc` holds the parts of the unknown key. The result has the keys with the same last part or in
    the same section.
    """
    if len(loc) == 1:
        sections = list(PlatformConfig.model_fields)
        return sections + [key for key in _keys(PlatformConfig) if key.endswith(f".{loc[0]}")]
    siblings = [key for key in _keys(PlatformConfig) if key.startswith(f"{loc[0]}.")]
    namesakes = [key for key in _keys(PlatformConfig) if key.endswith(f".{loc[-1]}")]
    return siblings + namesakes


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key below `model` that holds a value and not a section."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
