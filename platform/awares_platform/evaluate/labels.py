"""Labels the questions of an evaluation as curation does.

The judge compares the answers of the policies "low" and "full". Its replies are stored beside those
of curation, and their cost counts towards curate.budget. If the budget is spent, questions without
a stored reply get no label.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from awares.family import ModelFamily
from awares.sample import Sample
from awares_platform.config.curate import CurateConfig
from awares_platform.config.method import MethodConfig
from awares_platform.data.dataset import Images
from awares_platform.data.reply_log import ReplyLog
from awares_platform.evaluate.cascade import PlayedBy
from awares_platform.method.answers import Answers, both
from awares_platform.method.chat_client import KeptReply
from awares_platform.method.labeller import Labelled, Labeller
from awares_platform.method.spoken import Unpaid

log = logging.getLogger(__name__)


class EvaluationReplies(ReplyLog[KeptReply]):
    """A reply log whose spent budget leaves a question without a label, but does not end the job.

    Example:
        replies = EvaluationReplies.load(store, "datasets/invoices/replies/", KeptReply, 5.0)
    """

    def spent(self) -> Unpaid | None:
        """Return the error to raise for one question if the budget is spent, and otherwise None."""
        error = super().spent()
        return error and Unpaid(str(error))


def label(
    method: MethodConfig,
    curate: CurateConfig,
    family: ModelFamily,
    played: PlayedBy,
    images: Images,
    replies: EvaluationReplies | None = None,
) -> tuple[dict[str, Sample], int]:
    """Label the samples as curation does, from the answers of the policies "low" and "full".

    Return a dict from ids to samples, and the number of samples without a label because
    curate.budget is spent. A label is also None if curation would leave the sample out.
    """
    unlabelled = bare(played)
    if "low" not in played or "full" not in played:
        return unlabelled, 0
    answers = [both(low, full) for low, full in zip(played["low"], played["full"], strict=True)]
    found = asyncio.run(_label(method, curate, family, answers, images, replies))
    pairs = zip(unlabelled.values(), found, strict=True)
    labelled = {sample.sample_id: one.sample or sample for sample, one in pairs}
    return labelled, _unpaid(found)


def _unpaid(found: Sequence[Labelled]) -> int:
    """Return the number of samples that the spent budget leaves unlabelled, and warn of them."""
    faults = [one.fault for one in found if one.reason == Unpaid.reason]
    if faults:
        log.warning("%d of %d questions get no label: %s", len(faults), len(found), faults[0])
    return len(faults)


def bare(played: PlayedBy) -> dict[str, Sample]:
    """Return a dict from ids to samples, whose labels and crops are removed."""
    samples = [one.sample for one in next(iter(played.values()))]
    return {one.sample_id: replace(one, label=None, crops=()) for one in samples}


async def _label(
    method: MethodConfig,
    curate: CurateConfig,
    family: ModelFamily,
    answers: Sequence[Answers],
    images: Images,
    replies: EvaluationReplies | None,
) -> list[Labelled]:
    async with Labeller(method, curate, family, images, replies) as labeller:
        found = await labeller(answers)
    if replies is not None:
        # If no reply was readable, the next evaluation asks again, because the endpoint may be
        # mended by then.
        if not any(one.sample for one in found):
            await replies.forget_doubted()
        await replies.merge()
    return found
