"""Checks a RayService's serveConfigV2 with Ray Serve's models and this project's configuration.

Ray Serve accepts unknown keys, a route prefix without a slash, and autoscaling bounds in the wrong
order. This module reports them as errors.
"""

import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.serve.deployment import build_application


def faults(text: str) -> list[str]:
    """Return one message for each error in the text of a `serveConfigV2`."""
    config = yaml.safe_load(text)
    found = [
        f"serveConfigV2: {key}: Ray Serve has no such key"
        for key in unknown_keys(config, ServeDeploySchema)
    ]
    found += _refusals("serveConfigV2", ServeDeploySchema, config)
    for application in config.get("applications", ()):
        found += _application(application)
    return found


def unknown_keys(value: Any, annotation: Any, path: str = "") -> Iterator[str]:
    """Yield each dotted key of `value` that is no field of a pydantic model in `annotation`."""
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from unknown_keys(part, annotation, f"{path}[{index}]")
    models = _models(annotation)
    if not isinstance(value, dict) or not models:
        return
    fields = {
        name: field.annotation for model in models for name, field in model.model_fields.items()
    }
    for key, part in value.items():
        name = f"{path}.{key}".lstrip(".")
        if key in fields:
            yield from unknown_keys(part, fields[key], name)
        else:
            yield name


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models that a type annotation contains.

    Example:
        _models(Optional[list[DeploymentSchema]])  # [DeploymentSchema]
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _refusals(name: str, model: type[BaseModel], value: Any) -> list[str]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        return [
            f"{name}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors()
        ]
    return []


def _application(application: dict[str, Any]) -> Iterator[str]:
    name = application.get("name", "application")
    prefix = application.get("route_prefix", "/")
    if prefix is not None and not prefix.startswith("/"):
        yield f"{name}: route_prefix {prefix!r} does not begin with a slash"
    for deployment in application.get("deployments", ()):
        if isinstance(deployment.get("autoscaling_config"), dict):
            yield from _refusals(
                f"{name}: autoscaling_config of {deployment.get('name')}",
                AutoscalingConfig,
                deployment["autoscaling_config"],
            )
    module, _, attribute = application.get("import_path", "").partition(":")
    if not module.startswith("awares_platform.") or not hasattr(import_module(module), attribute):
        yield (
            f"{name}: import_path {application.get('import_path')!r} names nothing in "
            "awares_platform"
        )
    yield from _arguments(name, application)


def _arguments(name: str, application: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each invalid argument of the application.

    Also yield a message for each deployment that the application's builder does not create.
    """
    try:
        built = build_application(PlatformConfig.model_validate(application.get("args", {})))
    except ValidationError as error:
        yield from (
            f"{name}: args.{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors()
        )
        return
    except ConfigError as error:
        yield f"{name}: args: {error}"
        return
    made = built._bound_deployment.name
    for deployment in application.get("deployments", ()):
        if deployment.get("name") != made:
            named = deployment.get("name")
            yield f"{name}: deployment {named!r} is none of the application's: {made}"
