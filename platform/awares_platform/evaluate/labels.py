"""Labels the questions of an evaluation as curation does.

The judge compares the answers of the policies "low" and "full". Its replies are stored beside those
of curation, and their cost counts towards curate.budget.
"""

import asyncio
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


def label(
    method: MethodConfig,
    curate: CurateConfig,
    family: ModelFamily,
    played: PlayedBy,
    images: Images,
    replies: ReplyLog[KeptReply] | None = None,
) -> dict[str, Sample]:
    """Label the samples as curation does, from the answers of the policies "low" and "full".

    The result maps ids to samples. A label is None if curation would leave the sample out.

    Raises BudgetSpent if new replies would exceed curate.budget.
    """
    unlabelled = bare(played)
    if "low" not in played or "full" not in played:
        return unlabelled
    answers = [both(low, full) for low, full in zip(played["low"], played["full"], strict=True)]
    found = asyncio.run(_label(method, curate, family, answers, images, replies))
    pairs = zip(unlabelled.values(), found, strict=True)
    return {sample.sample_id: one.sample or sample for sample, one in pairs}


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
    replies: ReplyLog[KeptReply] | None,
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
