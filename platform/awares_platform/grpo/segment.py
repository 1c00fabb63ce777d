"""Encodes one segment of the journal as a parquet file, with one row per episode.

A group is finished, or it is unfinished because its actor was drained. Both kinds have the same
columns, and the column `outcome` tells them apart. In an unfinished episode, the last turn has the
tokens that were sampled by then.

The rows of a group are adjacent. The file's metadata hold the segment's header as JSON. They also
hold the header's blake3 hash, because parquet's checksums do not cover the metadata. A reader
decodes only the groups that it needs.
"""

import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.grpo.group import Group, Member, Outcome, Prompt, StepBatch
from awares_platform.grpo.segment_columns import SCHEMA, table

Pair = tuple[int, int]
"""The number of a prompt, and the attempt. The pair identifies a group of the run."""

_HEADER, _DIGEST, _VERSION = "header", "blake3", "format"
FORMAT = 2
"""The version of the format. Version 1 has no unfinished groups, and does not state its version."""


@dataclass(frozen=True, slots=True)
class Training:
    """The record of the groups on which a step trains.

    If a restarted learner repeats a step, the record with the highest version is valid.

    Example:
        Training(12, 13, ((24, 0), (25, 1)), watermark=26)
    """

    step: int
    version: int
    """The version that the step updates."""
    groups: tuple[Pair, ...]
    watermark: int
    """After the step, the run needs no more groups of prompts with smaller numbers."""

    @classmethod
    def of(cls, batch: StepBatch, version: int) -> "Training":
        """Return the record of the step that trains on `batch` and updates `version`."""
        groups = tuple(pair(group) for group in batch.groups)
        return cls(batch.step, version, groups, batch.position.watermark)


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a segment.

    Example:
        Header("9c0e...", root=1, through=17, training=None)
    """

    start: str
    """The digest of the run's recipe."""
    root: int
    """The first version that had the weights of the starting policy."""
    through: int
    """The highest prompt number in this and all earlier segments with the same `start`."""
    training: Training | None
    """The record of the segment's step, or None if the segment was written at a job's end."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The content of one file of the journal.

    Example:
        Segment(Header("9c0e...", 1, 17, None), (group,))
    """

    header: Header
    groups: tuple[Group, ...]


def pair(group: Group) -> Pair:
    """Return the prompt number and the attempt of a group."""
    return group.prompt.number, group.prompt.attempt


def encode(segment: Segment) -> bytes:
    """Encode a segment as a parquet file, and return the file's content."""
    header = json.dumps(asdict(segment.header)).encode()
    metadata = {_HEADER: header, _DIGEST: blake3(header).hexdigest(), _VERSION: str(FORMAT)}
    sink = io.BytesIO()
    pq.write_table(
        table(segment.groups).replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    return sink.getvalue()


class StoredSegment:
    """A segment in its encoded form, whose groups are decoded on demand.

    `finished` holds the pair (prompt number, attempt) of each finished group. Raises DataError if
    the data are damaged or newer than this release.
    """

    def __init__(self, data: bytes, key: str) -> None:
        self._key = key
        try:
            self._table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
            if not self._table.schema.equals(SCHEMA):
                raise ValueError("its columns differ")
            self.header = _header(self._table.schema.metadata)
            names = ("prompt", "attempt", "outcome")
            prompts, attempts, outcomes = (self._table[name].to_pylist() for name in names)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        # The first row and the number of rows of each group.
        self._rows: dict[Pair, tuple[int, int]] = {}
        self.finished: set[Pair] = set()
        for row, found in enumerate(zip(prompts, attempts, strict=True)):
            first, count = self._rows.get(found, (row, 0))
            self._rows[found] = first, count + 1
            if outcomes[row] != Outcome.UNFINISHED:
                self.finished.add(found)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The prompt number and the attempt of each group, in the order of the rows."""
        return tuple(self._rows)

    def outcome(self, group: Pair) -> Outcome:
        """Return a group's outcome, without decoding the group.

        Raises DataError if the data of the outcome are damaged.
        """
        [found] = self._column("outcome", group)[:1]
        try:
            return Outcome(found)
        except ValueError as error:
            raise self._damaged(error) from error

    def sampled_at(self, group: Pair) -> frozenset[int]:
        """Return the weight versions of a group's tokens, without decoding the group.

        Raises DataError if the data of these versions are damaged.
        """
        return frozenset(version for row in self._column("sampled_at", group) for version in row)

    def group(self, group: Pair) -> Group:
        """Decode a group. Raises DataError if the group's data are damaged."""
        try:
            return _group(self._table.slice(*self._rows[group]).to_pylist())
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _column(self, name: str, group: Pair) -> list[Any]:
        try:
            return self._table[name].slice(*self._rows[group]).to_pylist()
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self._key}: not an episode segment ({error}); skipped, its prompts are sampled again"
        )


_DAMAGE = (pa.ArrowException, OSError, KeyError, ValueError, TypeError)


def decode(data: bytes, key: str) -> Segment:
    """Decode `data`, the content of the file `key`. Raises DataError if the data are damaged."""
    stored = StoredSegment(data, key)
    return Segment(stored.header, tuple(stored.group(group) for group in stored.pairs))


def _header(metadata: dict[bytes, bytes] | None) -> Header:
    metadata = metadata or {}
    if (version := int(metadata.get(_VERSION.encode(), b"1"))) > FORMAT:
        raise ValueError(f"it has version {version} of the format, and this release reads {FORMAT}")
    text = metadata[_HEADER.encode()]
    if blake3(text).hexdigest() != metadata[_DIGEST.encode()].decode():
        raise ValueError("its header is damaged")
    fields = json.loads(text)
    if (training := fields["training"]) is not None:
        groups = tuple((number, attempt) for number, attempt in training["groups"])
        fields["training"] = Training(**{**training, "groups": groups})
    return Header(**fields)


def _group(rows: list[dict]) -> Group:
    first = rows[0]
    prompt = Prompt(first["prompt"], first["epoch"], _sample(first["sample"]), first["attempt"])
    return Group(
        prompt, tuple(_member(row) for row in rows), Outcome(first["outcome"]), first["seconds"]
    )


def _sample(text: str) -> Sample:
    fields = json.loads(text)
    fields["evidence"] = tuple(tuple(box) for box in fields["evidence"])
    fields["crops"] = tuple(fields["crops"])
    fields["further_answers"] = tuple(fields.get("further_answers", ()))
    fields["label"] = None if fields["label"] is None else Label(fields["label"])
    return Sample(**fields)


def _member(row: dict) -> Member:
    episode = Episode(
        sample_id=row["sample_id"],
        image=row["image"],
        image_size=tuple(row["image_size"]),
        turns=tuple(_turn(turn) for turn in row["turns"]),
        answer=row["answer"],
        stop=StopReason(row["stop"]),
        visual_tokens=row["visual_tokens"],
        rtr_token=row["rtr_token"],
        rtr_pixel=row["rtr_pixel"],
        error=row["error"],
    )
    reward = RewardValue(row["reward"], dict(row["reward_parts"]))
    return Member(episode, reward, row["correct"], row["advantage"])


def _turn(row: dict) -> Turn:
    views = zip(row["boxes"], row["scales"], strict=True)
    return Turn(
        context_ids=tuple(row["context_ids"]),
        views=tuple(View(None if box is None else tuple(box), scale) for box, scale in views),
        sampled_ids=tuple(row["sampled_ids"]),
        logprobs=tuple(row["logprobs"]),
        versions=tuple(row["versions"]),
        text=row["text"],
        crops=tuple(row["crops"]),
        stop=None if row["stop"] is None else StopReason(row["stop"]),
        area=row["area"],
    )
