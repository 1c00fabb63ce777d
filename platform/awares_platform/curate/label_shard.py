"""Labels one answered shard and writes it to the store: the second stage of curation."""

import asyncio
import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from awares.errors import AwaresError
from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.data.images import Images
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.method.answers import Answers
from awares_platform.method.family import model_family
from awares_platform.method.labeller import Labelled, Labeller
from awares_platform.store import ObjectStore

Columns = dict[str, np.ndarray]


def label_shard(batch: Columns, config: PlatformConfig) -> Columns:
    """Label the samples of an answered shard, and write the shard to the store.

    Ray Data calls this function. The batch has one row with "key", "fingerprint", "rows" and
    "failure" (see `Answerer`). The result has one row with "key", "faults", "failure", and the
    counts "lr", "hr", "dropped" and "unusable". "faults" is a JSON list of texts. Each text
    consists of the id of an unusable sample and the reason. "failure" is a pickled AwaresError, or
    empty.
    """
    failure: bytes = batch["failure"][0]
    none = {"lr": 0, "hr": 0, "dropped": 0, "unusable": 0, "faults": "[]"}
    counts: dict[str, Any] = {"key": str(batch["key"][0]), **none, "failure": failure}
    if not failure:
        try:
            counts |= _label_shard(batch, config)
        except AwaresError as error:
            counts["failure"] = pickle.dumps(error)
    return {
        name: np.array([value], dtype=object if name == "failure" else None)
        for name, value in counts.items()
    }


def _label_shard(batch: Columns, config: PlatformConfig) -> dict[str, Any]:
    key, fingerprint = str(batch["key"][0]), str(batch["fingerprint"][0])
    store = ObjectStore.from_config(config.store)
    rows = decode_rows(batch["rows"][0], key)
    answers = [
        Answers(
            sample,
            columns["low_answer"],
            columns["full_answer"],
            columns["confidence"],
            columns["fault"],
        )
        for sample, columns in zip(rows.samples, rows.columns, strict=True)
    ]
    images = Images.of(store, config.data)
    labelled = asyncio.run(_label_all(config, answers, images))
    store.put(key, encode_shard(labelled, fingerprint))
    labels = [one.sample.label for one in labelled if one.sample]
    faults = [f"{one.answers.sample.sample_id}: {one.fault}" for one in labelled if one.fault]
    counts = {
        "lr": labels.count(Label.LR),
        "hr": labels.count(Label.HR),
        "unusable": len(faults),
        "faults": json.dumps(faults),
    }
    return {**counts, "dropped": len(labelled) - len(labels) - len(faults)}


async def _label_all(
    config: PlatformConfig, answers: Sequence[Answers], images: Images
) -> list[Labelled]:
    family = model_family(config.policy)
    async with Labeller(config.method, config.curate, family, images) as labeller:
        return await labeller(answers)


def encode_shard(labelled: Sequence[Labelled], fingerprint: str) -> bytes:
    """Encode the samples that have a label, with their answers, confidence and verdict."""
    usable = [(one.sample, one) for one in labelled if one.sample]
    columns = {
        "low_answer": [one.answers.low for _, one in usable],
        "full_answer": [one.answers.full for _, one in usable],
        "confidence": [one.answers.confidence for _, one in usable],
        "verdict": ["" if one.verdict is None else one.verdict.name for _, one in usable],
    }
    return encode_rows([sample for sample, _ in usable], columns, {"fingerprint": fingerprint})
