"""Stores the base policy's answers to a shard's questions, so that no answer is sampled twice.

    datasets/<name>/answers/<digest>.parquet

The digest covers the samples and every setting on which the answers depend.
"""

from collections.abc import Sequence

from awares.sample import Sample
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.method.answers import Answers
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound


def encode_answers(answers: Sequence[Answers]) -> bytes:
    """Encode answered samples as a parquet file. The answers are additional columns."""
    columns = {
        "low_answer": [one.low for one in answers],
        "full_answer": [one.full for one in answers],
        "confidence": [one.confidence for one in answers],
        "fault": [one.fault for one in answers],
    }
    return encode_rows([one.sample for one in answers], columns)


def decode_answers(data: bytes, key: str) -> list[Answers]:
    """Return the answers in a file that `encode_answers` has written."""
    rows = decode_rows(data, key)
    return [
        Answers(
            sample,
            columns["low_answer"],
            columns["full_answer"],
            columns["confidence"],
            columns["fault"],
        )
        for sample, columns in zip(rows.samples, rows.columns, strict=True)
    ]


def read_answers(store: ObjectStore, key: str, samples: Sequence[Sample]) -> list[Answers | None]:
    """For each sample, return the stored answers, or None if it must be answered again.

    Answers with a fault are not used, because the cause, such as a damaged image, may be repaired.
    """
    try:
        found = decode_answers(store.get(key), key)
    except NotFound:
        found = []
    if [one.sample for one in found] != list(samples):
        return [None for _ in samples]
    return [None if one.fault else one for one in found]
