"""Samples groups of episodes from the journal of a GRPO run, runs/<run>/episodes/*/*.parquet.

The sample takes segments from the whole run, so that its groups are of early and late weight
versions. Questions with several groups come first.
"""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

from awares.errors import DataError
from awares_platform.grpo.group import Group, Outcome
from awares_platform.grpo.segment import decode
from awares_platform.store import ObjectStore

log = logging.getLogger(__name__)
SEGMENTS = 64
"""The largest number of segments that the report reads. A run writes about one in each step."""
QUESTIONS = 96
"""The largest number of questions whose episodes the report shows."""
AROUND = 8
"""The number of segments in which the report looks for the episodes of one version."""
T = TypeVar("T")


def sample_groups(store: ObjectStore, run: str, version: int | None = None) -> list[Group]:
    """Return groups of at most QUESTIONS questions, from segments that cover the whole run.

    Up to half of the questions have several groups. If `version` is given, the result also has
    groups with tokens of this version.

    Raises StoreError if the store fails.
    """
    keys = sorted(info.key for info in store.list(f"runs/{run}/episodes/"))
    keys = [key for key in keys if key.endswith(".parquet")]
    groups = _chosen([group for key in spread(keys, SEGMENTS) for group in _read(store, key)])
    wanted = [] if version is None else _of_version(store, keys, version)
    return groups + [group for group in wanted if group not in groups]


def _chosen(groups: Sequence[Group]) -> list[Group]:
    held: dict[str, list[Group]] = {}
    for group in groups:
        held.setdefault(group.prompt.sample.sample_id, []).append(group)
    again = [name for name, found in held.items() if len(found) > 1]
    once = [name for name, found in held.items() if len(found) == 1]
    repeated = spread(again, QUESTIONS // 2)
    chosen = {*repeated, *spread(once, QUESTIONS - len(repeated))}
    return [group for group in groups if group.prompt.sample.sample_id in chosen]


def _of_version(store: ObjectStore, keys: Sequence[str], version: int) -> list[Group]:
    """Return the groups with a token that `version` sampled, from AROUND consecutive segments.

    Later segments have later versions. A binary search thus finds the first of these segments.
    """
    first = bisect_left(keys, version, key=lambda key: _newest(_read(store, key)))
    near = [group for key in keys[first : first + AROUND] for group in _read(store, key)]
    return [group for group in near if version in _versions(group)]


def _newest(groups: Sequence[Group]) -> int:
    return max((version for group in groups for version in _versions(group)), default=-1)


def _versions(group: Group) -> set[int]:
    turns = [turn for member in group.members for turn in member.episode.turns]
    return {version for turn in turns for version in turn.versions}


def _read(store: ObjectStore, key: str) -> tuple[Group, ...]:
    try:
        groups = decode(store.get(key), key).groups
        return tuple(group for group in groups if group.outcome is not Outcome.UNFINISHED)
    except DataError as error:
        log.warning("the report leaves a segment out: %s", error)
        return ()


def spread(values: Sequence[T], count: int) -> list[T]:
    """Return `count` evenly spread values, or all values if there are fewer.

    The first and the last value are among them.

    Example:
        spread([0, 1, 2, 3, 4], 3)  # [0, 2, 4]
    """
    if len(values) <= count or count < 2:
        return list(values[: max(count, 0)])
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]
