"""Finds the curated set that belongs to a configuration.

    datasets/<data.name>-curated-<digest of the recipe>/train/

The digest in the name keeps apart sets of different settings or samples. A job passes the name to
its processes as data.labels.
"""

import json
from collections.abc import Iterator, Sequence

from awares.errors import MissingData
from awares_platform.config import PlatformConfig
from awares_platform.config.data import CURATED, DataConfig
from awares_platform.data.manifest import is_written, read_manifest
from awares_platform.method.family import model_family
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training.recipe import Recipe, changes, digest, label_recipe, set_recipe
from awares_platform.training.source import base_digest

SPLIT = "train"
LATEST_FIRST = ("grpo", "sft", "curate")
"""The jobs that record the name of their curated set as data.labels, the latest job first."""
_DIGITS = 12
_SHOWN_CHANGES = 3


def set_name(data: DataConfig, recipe: Recipe) -> str:
    """Return the name of the curated set with the recipe `recipe` (see `set_recipe`)."""
    return f"{data.name}{CURATED}-{digest(recipe)[:_DIGITS]}"


def with_labels(config: PlatformConfig, store: ObjectStore) -> PlatformConfig:
    """Return the configuration with the name of its curated set in data.labels.

    If no set was made with these settings, use <data.name>-curated. Raises MissingData if no set
    fits, and PolicyError if the base policy is unreadable.
    """
    data = config.data
    if data.labels:
        read_manifest(store, data.labels, SPLIT)
        return config
    policy = base_digest(config.store, config.policy.base, model_family(config.policy))
    labels = label_recipe(config.method, config.engine, config.curate, policy)
    name = _found(store, data, labels)
    return config.model_copy(update={"data": data.model_copy(update={"labels": name})})


def _found(store: ObjectStore, data: DataConfig, labels: Recipe) -> str:
    """Return the name of the curated set of `data` whose labels have the recipe `labels`."""
    wanted, name = labels, ""
    if is_written(store, data.name, SPLIT):
        wanted = set_recipe(data, labels, read_manifest(store, data.name, SPLIT))
        name = set_name(data, wanted)
        if is_written(store, name, SPLIT):
            return name
    own = f"{data.name}{CURATED}"
    recipe = _recipe(store, own) if is_written(store, own, SPLIT) else None
    # The set `own` comes from the user or an older release. It records no recipe, or its labels'.
    if recipe is not None and not (recipe and changes(recipe, labels)):
        return own
    others = {one: changes(_recipe(store, one), wanted, "there") for one in _sets(store, data.name)}
    nearest = min(others, key=lambda one: len(others[one]), default="")
    # An older version of this project may have given a set with this recipe another name.
    if nearest and not others[nearest]:
        return nearest
    message = f"data set {name or own!r} is not in {store.config.url}: run `awares curate` first"
    raise MissingData(_missing(message, nearest, others.get(nearest, [])))


def _missing(message: str, nearest: str, found: Sequence[str]) -> str:
    """Return `message`, extended by a hint to the existing set `nearest`, if there is one.

    `found` lists the differences between the recipe of `nearest` and the wanted recipe.
    """
    if not nearest:
        return message
    more = f"; and {len(found) - _SHOWN_CHANGES} more" if len(found) > _SHOWN_CHANGES else ""
    return (
        f"{message}, or set data.labels={nearest} to use the labels of another recipe "
        f"({'; '.join(found[:_SHOWN_CHANGES])}{more})"
    )


def _sets(store: ObjectStore, name: str) -> Iterator[str]:
    """Yield the names of the finished curated sets of the data set `name`."""
    for entry in store.list(f"datasets/{name}{CURATED}"):
        parts = entry.key.split("/")
        if parts[2:] == [SPLIT, "manifest.json"]:
            yield parts[1]


def _recipe(store: ObjectStore, name: str) -> Recipe:
    """Return the recipe that a curated set records, or {} if it records none."""
    made = read_manifest(store, name, SPLIT).get("recipe")
    settings = made.get("settings") if isinstance(made, dict) else None
    return settings if isinstance(settings, dict) else {}


def recorded_labels(
    store: ObjectStore, run: str, data: DataConfig, jobs: Sequence[str] = LATEST_FIRST
) -> DataConfig:
    """Return `data` with the name of the run's curated set in data.labels.

    Take the name from the first job in `jobs` that has recorded one. If none has, return `data`
    unchanged.
    """
    for job in jobs:
        try:
            found = json.loads(store.get(f"runs/{run}/{job}/config.json"))["data"]["labels"]
        except (NotFound, ValueError, LookupError, TypeError):
            continue
        if found:
            return data.model_copy(update={"labels": found})
    return data
