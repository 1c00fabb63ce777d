"""Measures how often a second judge agrees with the judge that labelled a curated set.

Cohen's kappa is (observed - expected) / (1 - expected). The expected agreement is that of
independent judges.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from awares.errors import DataError
from awares.labels import Case, Judge, Verdict
from awares_platform.config.curate import CurateConfig
from awares_platform.config.data import CURATED, DataConfig
from awares_platform.data.dataset import Split, read_split
from awares_platform.data.reply_log import ReplyLog
from awares_platform.method.chat_client import KeptReply
from awares_platform.method.judge import build_judge
from awares_platform.store import ObjectStore

SPLIT = "train"
VERDICTS = tuple(verdict.name for verdict in Verdict)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of two judges on a curated set.

    Example:
        Agreement("llama", "deepseek", {"TIE TIE": 80, "FULL FULL": 15, "TIE FULL": 5}, 0)
    """

    first: str
    """Name of the first judge."""
    second: str
    """Name of the second judge."""
    table: dict[str, int]
    """Number of samples for each pair of verdicts. The first judge's verdict comes first."""
    unreadable: int
    """Number of samples for which the second judge's reply was unreadable."""

    @property
    def samples(self) -> int:
        """The number of samples that both judges have judged."""
        return sum(self.table.values())

    @property
    def observed(self) -> float:
        """The share of samples on which both judges give the same verdict."""
        return sum(self.table.get(f"{one} {one}", 0) for one in VERDICTS) / self.samples

    @property
    def kappa(self) -> float:
        """Cohen's kappa, or 1 if both judges give all samples the same verdict."""
        firsts, seconds = Counter[str](), Counter[str]()
        for pair, count in self.table.items():
            first, second = pair.split()
            firsts[first] += count
            seconds[second] += count
        chance = sum(firsts[one] * seconds[one] for one in VERDICTS) / self.samples**2
        return 1.0 if chance == 1 else (self.observed - chance) / (1 - chance)

    def as_json(self) -> dict[str, Any]:
        """Return all figures as a JSON object."""
        figures = {"samples": self.samples, "agreement": self.observed, "kappa": self.kappa}
        return asdict(self) | figures

    def summary(self) -> str:
        """Return the figures and the table of verdicts as text."""
        lines = [
            f"{self.first} and {self.second} agree on {self.observed:.1%} of "
            f"{self.samples:,} samples; Cohen's kappa is {self.kappa:.3f}",
            f"{'first / second':>14}" + "".join(f"{name:>8}" for name in VERDICTS),
        ]
        for first in VERDICTS:
            counts = (self.table.get(f"{first} {second}", 0) for second in VERDICTS)
            lines.append(f"{first:>14}" + "".join(f"{count:>8,}" for count in counts))
        if self.unreadable:
            lines.append(f"the second judge has not judged {self.unreadable:,} samples")
        return "\n".join(lines)


def agreement_key(name: str) -> str:
    """Return the store key of the last measured agreement on the curated set `name`."""
    return f"datasets/{name}/agreement.json"


def measure(store: ObjectStore, data: DataConfig, curate: CurateConfig, name: str) -> Agreement:
    """Ask the second judge about all samples of a curated set, and write the agreement.

    Raises DataError if `name` is no curated set, or if no reply is readable.
    Raises ConfigError if the judge cannot be built, and EndpointError if its endpoint fails.
    """
    split = read_split(store, name, SPLIT)
    if not all("verdict" in columns for columns in split.columns):
        raise DataError(f"{name} has no verdicts: name a set that `awares curate` has written")
    labelled_by = data.model_copy(update={"name": name.rpartition(CURATED)[0] or data.name})
    replies = ReplyLog.load(store, labelled_by.replies_prefix, KeptReply, curate.budget)
    second = asyncio.run(_verdicts(second_judge(curate, replies), split, curate, replies))
    table: Counter[str] = Counter(
        f"{columns['verdict']} {verdict}"
        for columns, verdict in zip(split.columns, second, strict=True)
        if verdict
    )
    found = Agreement(
        _called(curate.judge, curate.judge_endpoint.model),
        _called(curate.second_judge, curate.second_judge_endpoint.model),
        dict(table),
        second.count(""),
    )
    if not found.samples:
        raise DataError(f"the second judge has judged no sample of {name}: check its endpoint")
    store.put(agreement_key(name), json.dumps(found.as_json(), indent=1).encode())
    return found


def second_judge(curate: CurateConfig, replies: ReplyLog[KeptReply]) -> Judge:
    """Build the second judge. Raises ConfigError if it cannot be built."""
    second = {
        "judge": curate.second_judge,
        "judge_settings": curate.second_judge_settings,
        "judge_endpoint": curate.second_judge_endpoint,
    }
    return build_judge(curate.model_copy(update=second), replies)


async def _verdicts(
    judge: Judge, split: Split, curate: CurateConfig, replies: ReplyLog
) -> Sequence[str]:
    """Return the name of the judge's verdict on each sample, or "" if its reply is unreadable."""
    limit = asyncio.Semaphore(curate.in_flight)

    async def verdict(case: Case) -> str:
        async with limit:
            try:
                return (await judge(case)).verdict.name
            except DataError:
                return ""

    async with AsyncExitStack() as stack:
        if isinstance(judge, AbstractAsyncContextManager):
            await stack.enter_async_context(judge)
        cases = [
            Case(
                sample.question,
                sample.answer,
                columns["low_answer"],
                columns["full_answer"],
                sample.further_answers,
            )
            for sample, columns in zip(split.samples, split.columns, strict=True)
        ]
        found = await asyncio.gather(*map(verdict, cases))
    await replies.merge()
    return found


def _called(judge: str, model: str) -> str:
    return model if judge == "endpoint" else judge
