"""Stores every finished group of a run in the object store, with one row per episode.

    runs/<run>/episodes/<segment>.parquet

A segment is one file. The store writes it atomically, under a unique number. If two controllers
write segments with the same number, the second write fails. The journal stores no pixels, because
every view can be cut again from the image. The metadata of a segment holds the digest of the policy
from which GRPO started. A job that starts from another policy does not learn from the segment.
"""

import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.grpo.group import Group, Member, Outcome, Prompt
from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed

log = logging.getLogger(__name__)

_TURN = pa.struct(
    [
        ("context_ids", pa.list_(pa.int32())),
        # The turn has one box per view. A null box stands for the low-resolution view.
        ("boxes", pa.list_(pa.list_(pa.int32()))),
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
_START = "start"
_SCHEMA = pa.schema(
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
        ("turns", pa.list_(_TURN)),
        ("answer", pa.string()),
        ("stop", pa.string()),
        ("visual_tokens", pa.int32()),
        ("rtr_token", pa.float64()),
        ("rtr_pixel", pa.float64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Segment:
    """The content of one file of the journal.

    `start` is the digest of the policy from which GRPO started when it wrote the file.

    Example:
        Segment("9c0e...", (group,))
    """

    start: str
    groups: tuple[Group, ...]


class Journal:
    """Appends the groups of one run to the store, and reads them back.

    `start` is the digest of the policy from which GRPO starts.
    """

    def __init__(self, store: ObjectStore, run: str, start: str) -> None:
        self._store = store
        self._prefix = f"runs/{run}/episodes/"
        self._start = start
        self._segment = 0

    def append(self, groups: Sequence[Group]) -> None:
        """Write `groups` as the next segment.

        Raises PreconditionFailed if another controller has written a segment of this number.
        """
        if not groups:
            return
        key = f"{self._prefix}{self._segment:08d}.parquet"
        try:
            self._store.put(key, encode(Segment(self._start, tuple(groups))), if_none_match=True)
        except PreconditionFailed as error:
            raise PreconditionFailed(
                f"{key} exists: another grpo job writes this run; "
                "stop one of them or change run.name"
            ) from error
        self._segment += 1

    def read(self) -> list[Group]:
        """Return the group of the latest attempt at each prompt, in the order of prompt numbers.

        Later calls of `append` write after the last segment that `read` found. The method logs and
        skips a damaged segment, and a segment with another `start`. The run then samples the
        segment's prompts again, unless a checkpoint has settled these prompts.
        """
        groups: list[Group] = []
        others = 0
        for segment in self._segments():
            if segment.start == self._start:
                groups += segment.groups
            else:
                others += len(segment.groups)
        if others:
            log.warning(
                "%s: %d groups come from another starting policy; they are not learned from",
                self._prefix,
                others,
            )
        return latest_attempts(groups)

    def _segments(self) -> Iterator[Segment]:
        names = (info.key for info in self._store.list(self._prefix))
        for key in sorted(name for name in names if name.endswith(".parquet")):
            self._segment = int(key.rsplit("/", 1)[-1].removesuffix(".parquet")) + 1
            try:
                yield decode(self._store.get(key), key)
            except DataError as error:
                log.warning("%s", error)


def latest_attempts(groups: Iterable[Group]) -> list[Group]:
    """Return one group per prompt, in the order of prompt numbers.

    The function keeps the group with the highest attempt. If several groups of a prompt have this
    attempt, it keeps the last of these groups.
    """
    latest: dict[int, Group] = {}
    for group in groups:
        held = latest.get(group.prompt.number)
        if held is None or held.prompt.attempt <= group.prompt.attempt:
            latest[group.prompt.number] = group
    return [latest[number] for number in sorted(latest)]


def encode(segment: Segment) -> bytes:
    """Encode a segment as a parquet file, and return the file's content."""
    rows = [
        _row(group, index, member)
        for group in segment.groups
        for index, member in enumerate(group.members)
    ]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({_START: segment.start})),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    return sink.getvalue()


def decode(data: bytes, key: str) -> Segment:
    """Decode `data`, the content of the file `key`. Raises DataError if the data are damaged."""
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        if not table.schema.equals(_SCHEMA):
            raise ValueError("its columns differ")
        groups: dict[tuple[int, int], list[dict]] = {}
        for row in table.to_pylist():
            groups.setdefault((row["prompt"], row["attempt"]), []).append(row)
        start = table.schema.metadata[_START.encode()].decode()
        return Segment(start, tuple(_group(members) for members in groups.values()))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{key}: not an episode segment ({error}); skipped, its prompts are sampled again"
        ) from error


def _row(group: Group, index: int, member: Member) -> dict:
    episode = member.episode
    return {
        "prompt": group.prompt.number,
        "attempt": group.prompt.attempt,
        "epoch": group.prompt.epoch,
        "member": index,
        "outcome": group.outcome.value,
        "seconds": group.seconds,
        "reward": member.reward.total,
        "reward_parts": list(member.reward.parts.items()),
        "correct": member.correct,
        "advantage": member.advantage,
        "sample": json.dumps(asdict(group.prompt.sample)),
        "sample_id": episode.sample_id,
        "image": episode.image,
        "image_size": episode.image_size,
        "turns": [_turn_row(turn) for turn in episode.turns],
        "answer": episode.answer,
        "stop": episode.stop.value,
        "visual_tokens": episode.visual_tokens,
        "rtr_token": episode.rtr_token,
        "rtr_pixel": episode.rtr_pixel,
        "error": episode.error,
    }


def _turn_row(turn: Turn) -> dict:
    return {
        "context_ids": turn.context_ids,
        "boxes": [view.box for view in turn.views],
        "sampled_ids": turn.sampled_ids,
        "logprobs": turn.logprobs,
        "versions": turn.versions,
        "text": turn.text,
        "crops": turn.crops,
        "stop": None if turn.stop is None else turn.stop.value,
        "scales": [view.scale for view in turn.views],
        "area": turn.area,
    }


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
