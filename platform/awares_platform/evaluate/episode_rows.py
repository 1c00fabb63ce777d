"""Encodes scored episodes as parquet with one row per question."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from awares.sample import Sample
from awares_platform.evaluate.scored import Scored

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("image", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("kind", pa.string()),
        pa.field("question", pa.string()),
        pa.field("truth", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("correct", pa.bool_()),
        pa.field("score", pa.float64()),
        pa.field("reward", pa.float64()),
        pa.field("stop", pa.string()),
        pa.field("error", pa.string()),
        pa.field("turns", pa.list_(pa.string())),
        pa.field("crops", pa.list_(pa.string())),
        pa.field("boxes", pa.list_(pa.list_(pa.int32()))),
        pa.field("visual_tokens", pa.int32()),
        pa.field("rtr_token", pa.float64()),
        pa.field("rtr_pixel", pa.float64()),
        pa.field("latency_s", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("target_crops", pa.list_(pa.string())),
        pa.field("annotated_label", pa.string()),
        pa.field("annotated_crops", pa.list_(pa.string())),
        pa.field("evidence", pa.list_(pa.list_(pa.int32()))),
    ]
)
"""The columns of episodes-<policy>.parquet.

`boxes` holds the boxes of the crops that the policy received, in pixels. This evaluation derives
`label` and `target_crops` from the answers of the policies "low" and "full". `annotated_label`,
`annotated_crops` and `evidence` come with the question. `reward` is null if `label` is null or the
episode failed.
"""


def encode_episodes(scored: Sequence[Scored]) -> bytes:
    """Encode the episodes as a parquet file with `SCHEMA`."""
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([_row(one) for one in scored], schema=SCHEMA),
        buffer,
        compression="zstd",
    )
    return buffer.getvalue()


def _row(one: Scored) -> dict[str, Any]:
    episode, sample = one.episode, one.sample
    return {
        "sample_id": sample.sample_id,
        "image": sample.image,
        "width": episode.image_size[0],
        "height": episode.image_size[1],
        "kind": sample.kind,
        "question": sample.question,
        "truth": sample.answer,
        "answer": episode.answer,
        "correct": one.score >= 0.5,
        "score": one.score,
        "reward": one.reward,
        "stop": episode.stop.value,
        "error": episode.error,
        "turns": [turn.text for turn in episode.turns],
        "crops": list(episode.crops),
        "boxes": [
            list(view.box)
            for turn in episode.turns[1:]
            for view in turn.views
            if view.box is not None
        ],
        "visual_tokens": episode.visual_tokens,
        "rtr_token": episode.rtr_token,
        "rtr_pixel": episode.rtr_pixel,
        "latency_s": one.latency_s,
        "label": _label(one.labelled),
        "target_crops": list(one.labelled.crops),
        "annotated_label": _label(sample),
        "annotated_crops": list(sample.crops),
        "evidence": [list(box) for box in sample.evidence],
    }


def _label(sample: Sample) -> str | None:
    return None if sample.label is None else sample.label.value
