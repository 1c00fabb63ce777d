"""Records the settings of a policy's inputs in training, in awares.json in the policy's directory.

With other settings, the policy would answer worse without any error, so `check` refuses them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awares.errors import MissingPolicy, PolicyError
from awares.family import ModelFamily
from awares_platform.config.method import MethodConfig
from awares_platform.method import environment
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.weights import Manifest, Subscriber

FILE = "awares.json"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
BOUNDS = ("size", "min_pixels", "max_pixels")
"""The keys of an image processor's configuration that bound the area of an image.

Older configurations have min_pixels and max_pixels instead of size.
"""
INPUTS = "inputs"
"""The key in `extra` of a weight manifest under which the learner stores `environment.inputs`."""
_FORMAT = 1


def write(directory: Path, family: ModelFamily, method: MethodConfig) -> None:
    """Write awares.json, and write the bounds on an image's area into the processor's files.

    awares.json also records the text of the system prompt. Raises ConfigError if the environment
    that `method` names cannot be built.
    """
    content = {"format": _FORMAT, "method": environment.inputs(method)}
    (directory / FILE).write_text(json.dumps(content, indent=1))
    bounds = {
        "min_pixels": method.min_pixels,
        "max_pixels": method.max_pixels,
        **family.processor_options(family.limits(method.min_pixels, method.max_pixels)),
    }
    for file in (directory / name for name in PROCESSOR_FILES if (directory / name).is_file()):
        processor = json.loads(file.read_text("utf-8"))
        if (image := image_processor(file, processor)) is not None:
            image |= {key: bounds[key] for key in bounds if key == "size" or key in image}
            file.write_text(json.dumps(processor, indent=2), "utf-8")


def image_processor(file: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the image processor's settings in the content of a processor's file.

    The result is None if the file has no such settings.
    """
    return content if file.name == PROCESSOR_FILES[1] else content.get("image_processor")


def recorded(directory: Path, method: MethodConfig) -> MethodConfig:
    """Return `method` with the values of awares.json, or unchanged if there is no such file.

    Raises PolicyError if the file is damaged.
    """
    file = directory / FILE
    if not file.is_file():
        return method
    trained = _settings(file.read_bytes(), str(file))
    try:
        return MethodConfig.model_validate({**method.model_dump(), **trained})
    except ValueError as error:
        raise PolicyError(f"{file} is damaged ({error}): export the policy again") from error


def check(directory: Path, method: MethodConfig) -> None:
    """Raise PolicyError if awares.json has other values than `method`.

    A directory without awares.json was not exported by this project and is not checked.
    """
    file = directory / FILE
    if file.is_file():
        _compare(_settings(file.read_bytes(), str(file)), str(directory), method)


def check_stored(
    store: ObjectStore, key: str, method: MethodConfig, again: str | None = None
) -> None:
    """Check the exported policy below `key` in the store as `check` does, without a download.

    `again` is the command that replaces the policy, or None. With a command, the error is
    MissingPolicy instead of PolicyError.
    """
    try:
        content = store.get(f"{key}/{FILE}")
    except NotFound:
        return
    place = f"{store.config.url}/{key}"
    _compare(_settings(content, f"{place}/{FILE}"), place, method, again)


def check_published(manifest: Manifest, run: str, method: MethodConfig) -> None:
    """Raise PolicyError if the learner of `run` trains with other input settings than `method`.

    A manifest that records no input settings is not checked.
    """
    place = f"version {manifest.version} of run {run}"
    _compare(manifest.extra.get(INPUTS, {}), place, method)


def check_newest(store: ObjectStore, run: str, method: MethodConfig) -> None:
    """Check the newest published version of `run`, if there is one, as `check_published` does."""
    subscriber = Subscriber(store, run)
    if (newest := subscriber.head()) is not None:
        check_published(subscriber.manifest(newest), run, method)


def published(manifest: Manifest, method: MethodConfig) -> MethodConfig | None:
    """Return `method` with the input settings of `manifest`, or None if it records none."""
    trained = manifest.extra.get(INPUTS)
    return trained and MethodConfig.model_validate({**method.model_dump(), **trained})


def _compare(
    trained: Mapping[str, Any], place: str, method: MethodConfig, again: str | None = None
) -> None:
    now = environment.inputs(method)
    differing = [
        f"method.{key} = {json.dumps(value)} (here {json.dumps(now[key])})"
        for key, value in trained.items()
        if key in now and now[key] != value
    ]
    if differing:
        stale = MissingPolicy if again else PolicyError
        remedy = f"run `{again}` again, or " if again else ""
        raise stale(
            f"the policy in {place} was trained with {', '.join(differing)}: "
            f"{remedy}set [method] to the values of the training"
        )


def _settings(content: bytes, file: str) -> dict[str, Any]:
    """Return the settings in the content of `file`. Raises PolicyError if it is damaged."""
    try:
        return dict(json.loads(content)["method"].items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{file} is damaged ({error}): export the policy again") from error
