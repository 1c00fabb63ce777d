"""Turns groups into the columns of a journal segment, with one row per episode.

The packed tokens of all turns are joined, so that no token becomes a Python object.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from awares.episode import Turn
from awares.packed import ID, LOGPROB, VERSION
from awares_platform.grpo.group import Group, Member, sampled_versions

_BOX = pa.list_(pa.int32())
_TURN = pa.struct(
    [
        ("context_ids", pa.list_(pa.int32())),
        # The turn has one box per view. A null box stands for the low-resolution view.
        ("boxes", pa.list_(_BOX)),
        ("sampled_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float64())),
        ("versions", pa.list_(pa.int64())),
        ("text", pa.string()),
        ("crops", pa.list_(pa.string())),
        ("stop", pa.string()),
        ("scales", pa.list_(pa.float64())),
        ("area", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("prompt", pa.int64()),
        ("attempt", pa.int32()),
        ("epoch", pa.int32()),
        ("member", pa.int32()),
        ("outcome", pa.string()),
        ("seconds", pa.float64()),
        ("reward", pa.float64()),
        ("reward_parts", pa.map_(pa.string(), pa.float64())),
        ("correct", pa.bool_()),
        ("advantage", pa.float64()),
        ("sample", pa.string()),
        ("sample_id", pa.string()),
        ("image", pa.string()),
        ("image_size", pa.list_(pa.int32())),
        # The distinct weight versions of the row's sampled tokens.
        ("sampled_at", pa.list_(pa.int64())),
        ("turns", pa.list_(_TURN)),
        ("answer", pa.string()),
        ("stop", pa.string()),
        ("visual_tokens", pa.int32()),
        ("rtr_token", pa.float64()),
        ("rtr_pixel", pa.float64()),
        ("error", pa.string()),
    ]
)
_AT_ONCE = 32
"""The number of groups that are converted at once. During a conversion no other Python thread runs,
so a larger number would block the event loop for longer."""


def table(groups: Sequence[Group]) -> pa.Table:
    """Return one row for each episode of `groups`. The rows of a group are adjacent."""
    parts = [_part(groups[at : at + _AT_ONCE]) for at in range(0, len(groups), _AT_ONCE)]
    return pa.Table.from_batches(parts, SCHEMA)


def _part(groups: Sequence[Group]) -> pa.RecordBatch:
    columns = {
        **_of_groups(groups),
        **_of_members([member for group in groups for member in group.members]),
    }
    arrays = [
        value if isinstance(value := columns[one.name], pa.Array) else pa.array(value, one.type)
        for one in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _of_groups(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the columns that describe a row's group, and the column of the member's index."""
    sizes = [len(group.members) for group in groups]

    def column(values: Iterable[Any]) -> list[Any]:
        return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]

    return {
        "prompt": column(group.prompt.number for group in groups),
        "attempt": column(group.prompt.attempt for group in groups),
        "epoch": column(group.prompt.epoch for group in groups),
        "outcome": column(group.outcome.value for group in groups),
        "seconds": column(group.seconds for group in groups),
        "sample": column(json.dumps(asdict(group.prompt.sample)) for group in groups),
        "member": [index for size in sizes for index in range(size)],
    }


def _of_members(members: Sequence[Member]) -> dict[str, Any]:
    episodes = [member.episode for member in members]
    return {
        "reward": [member.reward.total for member in members],
        "reward_parts": [list(member.reward.parts.items()) for member in members],
        "correct": [member.correct for member in members],
        "advantage": [member.advantage for member in members],
        "sample_id": [episode.sample_id for episode in episodes],
        "image": [episode.image for episode in episodes],
        "image_size": [episode.image_size for episode in episodes],
        "sampled_at": [sorted(sampled_versions((member,))) for member in members],
        "turns": _turns([episode.turns for episode in episodes]),
        "answer": [episode.answer for episode in episodes],
        "stop": [episode.stop.value for episode in episodes],
        "visual_tokens": [episode.visual_tokens for episode in episodes],
        "rtr_token": [episode.rtr_token for episode in episodes],
        "rtr_pixel": [episode.rtr_pixel for episode in episodes],
        "error": [episode.error for episode in episodes],
    }


def _turns(rows: Sequence[Sequence[Turn]]) -> pa.Array:
    turns = list(chain.from_iterable(rows))
    packed = [turn.packed for turn in turns]
    columns = {
        "context_ids": _numbers([one.context_ids for one in packed], ID),
        "boxes": _lists([[view.box for view in turn.views] for turn in turns], _BOX),
        "sampled_ids": _numbers([one.sampled_ids for one in packed], ID),
        "logprobs": _numbers([one.logprobs for one in packed], LOGPROB),
        "versions": _versions([one.spans for one in packed]),
        "text": pa.array([turn.text for turn in turns], pa.string()),
        "crops": _lists([turn.crops for turn in turns], pa.string()),
        "stop": pa.array([turn.stop and turn.stop.value for turn in turns], pa.string()),
        "scales": _lists([[view.scale for view in turn.views] for turn in turns], pa.float64()),
        "area": pa.array([turn.area for turn in turns], pa.float64()),
    }
    kinds = list(_TURN)
    struct = pa.StructArray.from_arrays([columns[one.name] for one in kinds], fields=kinds)
    return pa.ListArray.from_arrays(_offsets([len(row) for row in rows]), struct)


def _numbers(rows: Sequence[bytes], code: str) -> pa.Array:
    """Return packed numbers as one list per row. `code` is their type code in `array` and numpy."""
    flat = np.frombuffer(b"".join(rows), code)
    counts = [len(row) // flat.itemsize for row in rows]
    return pa.ListArray.from_arrays(_offsets(counts), pa.array(flat))


def _versions(rows: Sequence[bytes]) -> pa.Array:
    """Return the version of each token, as one list per row.

    A row of `rows` packs pairs (version, number of consecutive tokens) of one turn.
    """
    runs_R2 = np.frombuffer(b"".join(rows), VERSION).reshape(-1, 2)
    tokens = _offsets(runs_R2[:, 1])[_offsets([len(row) // (2 * runs_R2.itemsize) for row in rows])]
    return pa.ListArray.from_arrays(tokens, pa.array(np.repeat(runs_R2[:, 0], runs_R2[:, 1])))


def _lists(rows: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.Array:
    flat = pa.array(list(chain.from_iterable(rows)), kind)
    return pa.ListArray.from_arrays(_offsets([len(row) for row in rows]), flat)


def _offsets(counts: ArrayLike) -> np.ndarray:
    """Return the index in the flat list at which each row begins, and the flat list's length."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int32)), dtype=np.int32)
