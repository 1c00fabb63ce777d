"""The second stage of curation: labels the samples of a shard, for which answers are known."""

import asyncio
import json
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from awares.errors import AwaresError, DataError
from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.curate.answered_rows import decode_answers
from awares_platform.curate.losses import LossReports
from awares_platform.data.images import Images
from awares_platform.data.reply_log import ReplyLog
from awares_platform.data.rows import encode_rows
from awares_platform.method.answers import Answers
from awares_platform.method.chat_client import EndpointUsage, KeptReply
from awares_platform.method.family import model_family
from awares_platform.method.labeller import Labelled, Labeller
from awares_platform.runtime.watchdog import watchdog
from awares_platform.store import ObjectStore
from awares_platform.store.errors import LaunchError

Columns = dict[str, np.ndarray]

NOT_A_REPLY = frozenset({"", "answer", "data"})
"""Values of `Labelled.reason`. All other values mean that a reply was unreadable."""
LOST = "lost"
"""The metadata key for the number of samples that have no label due to unreadable replies."""
COUNTS = "counts"
"""The metadata key for the counts of a shard, which the datasheet adds up."""
BOTH_WRONG = "both answers wrong"
FEWEST_LOST = 4
SHOWN = 3


def label_shard(
    batch: Columns, config: PlatformConfig, reports: LossReports | None = None
) -> Columns:
    """Label the samples of an answered shard, and write the shard to the store.

    `Answerer` describes the batch. The result has one row with these columns:

        lr, hr, dropped, unusable, dropped_boxes    counts
        faults     a JSON list with the id of each unusable sample and its fault
        reasons    a JSON object with the number of unusable samples by kind of fault
        failure    a pickled AwaresError, or empty
        key        as in the batch

    `reports` counts the processes that died on this shard.
    """
    failure: bytes = batch["failure"][0]
    none: dict[str, Any] = {"lr": 0, "hr": 0, "dropped": 0, "unusable": 0, "dropped_boxes": 0}
    none |= {"faults": "[]", "reasons": "{}"}
    counts: dict[str, Any] = {"key": str(batch["key"][0]), **none, "failure": failure}
    if not failure:
        try:
            if reports and (lost_too_often := reports.begun(counts["key"])):
                raise LaunchError(lost_too_often)
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
    answers = decode_answers(batch["rows"][0], key)
    images = Images.of(store, config.data)
    replies = ReplyLog.load(store, config.data.replies_prefix, KeptReply, config.curate.budget)
    with watchdog(config.run.hang_timeout_s):
        labelled, usage = asyncio.run(_label_all(config, answers, images, replies, key))
        store.put(key, encode_shard(labelled, fingerprint, usage))
    labels = [one.sample.label for one in labelled if one.sample]
    faults = [f"{one.answers.sample.sample_id}: {one.fault}" for one in labelled if one.fault]
    counts = {
        "lr": labels.count(Label.LR),
        "hr": labels.count(Label.HR),
        "unusable": len(faults),
        "dropped_boxes": sum(one.dropped_boxes for one in labelled),
        "faults": json.dumps(faults),
        "reasons": json.dumps(Counter(one.reason for one in labelled if one.fault)),
    }
    return {**counts, "dropped": len(labelled) - len(labels) - len(faults)}


async def _label_all(
    config: PlatformConfig,
    answers: Sequence[Answers],
    images: Images,
    replies: ReplyLog[KeptReply],
    key: str,
) -> tuple[list[Labelled], Mapping[str, EndpointUsage]]:
    """Label the samples of the shard `key`.

    Return the samples, and the usage (requests and tokens) under "judge" and "grounding".

    Raises DataError if no sample has a label and at least four replies were unreadable.
    """
    family = model_family(config.policy)
    async with Labeller(config.method, config.curate, family, images, replies) as labeller:
        labelled = await labeller(answers)
    try:
        require_labels(labelled, key)
    except DataError:
        await replies.forget_doubted()
        raise
    await replies.merge()
    return labelled, labeller.usage


def require_labels(labelled: Sequence[Labelled], key: str) -> None:
    """Raise DataError if no sample has a label, and at least four replies were unreadable.

    Fewer than four unreadable replies may be chance. The error quotes some of the replies.
    """
    lost = [one for one in labelled if one.reason not in NOT_A_REPLY]
    if len(lost) < FEWEST_LOST or any(one.sample for one in labelled):
        return
    reasons = Counter(one.reason for one in lost).most_common()
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
    shown = "; ".join(dict.fromkeys(one.fault for one in lost[:SHOWN]))
    raise DataError(
        f"no sample of {key} has a label, because {len(lost)} replies of the judge or the "
        f"grounding are unreadable ({counts}): {shown}. "
        "Mend the endpoint or its settings, and run `awares curate` again"
    )


def encode_shard(
    labelled: Sequence[Labelled], fingerprint: str, usage: Mapping[str, EndpointUsage] | None = None
) -> bytes:
    """Encode the samples that have a label, with their answers, confidence and verdict.

    The metadata holds the fingerprint, the counts for the datasheet, and the number of samples that
    lack a label because of an unreadable reply.
    """
    usable = [(one.sample, one) for one in labelled if one.sample]
    columns = {
        "low_answer": [one.answers.low for _, one in usable],
        "full_answer": [one.answers.full for _, one in usable],
        "confidence": [one.answers.confidence for _, one in usable],
        "verdict": ["" if one.verdict is None else one.verdict.name for _, one in usable],
    }
    lost = sum(one.reason not in NOT_A_REPLY for one in labelled)
    counts = {
        "left out": Counter(one.reason or BOTH_WRONG for one in labelled if not one.sample),
        "dropped boxes": sum(one.dropped_boxes for one in labelled),
        "used": {name: asdict(one) for name, one in (usage or {}).items()},
    }
    metadata = {"fingerprint": fingerprint, LOST: str(lost), COUNTS: json.dumps(counts)}
    return encode_rows([sample for sample, _ in usable], columns, metadata)
