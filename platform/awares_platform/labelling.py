"""From two answers to a label and target crops (paper, section 3.2).

low answer, full answer --judge--> verdict, confidence --> LR, or HR --grounding--> boxes --method.mapping--> crops
"""

import asyncio
import json
import pickle
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL.Image import Image

from awares.crops import CropId, target_crops
from awares.errors import AwaresError, DataError
from awares.labels import Case, Verdict, label
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.dataset import Images
from awares_platform.endpoint import ChatEndpoint
from awares_platform.grounding import Annotations, EndpointGrounding, Grounding
from awares_platform.judge import CaseJudge, EndpointJudge, MatchJudge
from awares_platform.rows import decode_rows, encode_rows
from awares_platform.store import ObjectStore

Batch = dict[str, np.ndarray]
PAPER_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Answers:
    """The base policy's two answers to a sample; "" stands for none. `confidence` is the probability that the policy gave its low
    answer, 0 for none. `fault` says why the sample cannot be used.

    Example:
        Answers(sample, "1", "7", 0.62, "")
    """

    sample: Sample
    low: str
    full: str
    confidence: float
    fault: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sample with its label and target crops, or why it has none; one that was dropped since both answers are wrong has no fault.

    Example:
        Labelled(Answers(sample, "1", "7", 0.62, ""), sample, Verdict.FULL, "")
    """

    answers: Answers
    sample: Sample | None
    verdict: Verdict | None
    fault: str


def label_shard(batch: Batch, config: PlatformConfig) -> Batch:
    """For `map_batches(batch_size=1)`: labels what Answerer answered, writes the curated shard, returns its counts.

    In: {"key", "fingerprint", "rows", "failure"}; out: {"key", "lr", "hr", "dropped", "unusable", "faults" (JSON list of reasons),
    "failure" (a pickled AwaresError, or empty)}, one row each.
    """
    failure: bytes = batch["failure"][0]
    none = {"lr": 0, "hr": 0, "dropped": 0, "unusable": 0, "faults": "[]"}
    counts: dict[str, Any] = {"key": str(batch["key"][0]), **none, "failure": failure}
    if not failure:
        try:
            counts |= _label_shard(batch, config)
        except AwaresError as error:
            counts["failure"] = pickle.dumps(error)
    return {name: np.array([value], dtype=object if name == "failure" else None) for name, value in counts.items()}


def _label_shard(batch: Batch, config: PlatformConfig) -> dict[str, Any]:
    key, fingerprint = str(batch["key"][0]), str(batch["fingerprint"][0])
    store = ObjectStore.from_config(config.store)
    rows = decode_rows(batch["rows"][0], key)
    answers = [
        Answers(sample, columns["low_answer"], columns["full_answer"], columns["confidence"], columns["fault"])
        for sample, columns in zip(rows.samples, rows.columns, strict=True)
    ]
    labelled = asyncio.run(_label_all(config, answers, Images(store, config.data.image_cache)))
    store.put(key, encode_shard(labelled, fingerprint))
    labels = [one.sample.label for one in labelled if one.sample]
    faults = [f"{one.answers.sample.sample_id}: {one.fault}" for one in labelled if one.fault]
    counts = {"lr": labels.count(Label.LR), "hr": labels.count(Label.HR), "unusable": len(faults), "faults": json.dumps(faults)}
    return {**counts, "dropped": len(labelled) - len(labels) - len(faults)}


async def _label_all(config: PlatformConfig, answers: Sequence[Answers], images: Images) -> list[Labelled]:
    async with Labeller(config, images) as labeller:
        return await labeller(answers)


def encode_shard(labelled: Sequence[Labelled], fingerprint: str) -> bytes:
    """The curated shard: usable samples with both answers, the low one's confidence and the verdict beside them."""
    usable = [(one.sample, one) for one in labelled if one.sample]
    columns = {
        "low_answer": [one.answers.low for _, one in usable],
        "full_answer": [one.answers.full for _, one in usable],
        "confidence": [one.answers.confidence for _, one in usable],
        "verdict": ["" if one.verdict is None else one.verdict.name for _, one in usable],
    }
    return encode_rows([sample for sample, _ in usable], columns, {"fingerprint": fingerprint})


class Labeller:
    """Labels samples by the configured judge and grounding. An async context manager: it may hold connections."""

    def __init__(self, config: PlatformConfig, images: Callable[[str], Image]) -> None:
        self._method = config.method
        self._config = config.curate
        self._images = images
        self._stack = AsyncExitStack()
        self._judge: CaseJudge = MatchJudge()
        self._grounding: Grounding = Annotations()

    async def __aenter__(self) -> "Labeller":
        if self._config.judge == "endpoint":
            self._judge = EndpointJudge(await self._stack.enter_async_context(ChatEndpoint(self._config.judge_endpoint)))
        if self._config.grounding == "endpoint":
            endpoint = await self._stack.enter_async_context(ChatEndpoint(self._config.grounding_endpoint))
            self._grounding = EndpointGrounding(endpoint, self._images)
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._stack.aclose()

    async def __call__(self, batch: Sequence[Answers]) -> list[Labelled]:
        """Labels all at once, in order; the endpoints bound how many requests fly. Raises EndpointError if one cannot be used."""
        return list(await asyncio.gather(*(self._label(answers) for answers in batch)))

    async def _label(self, answers: Answers) -> Labelled:
        if answers.fault:
            return Labelled(answers, None, None, answers.fault)
        sample = answers.sample
        try:
            judgement = await self._judge(Case(sample.question, sample.answer, answers.low, answers.full))
            chosen = label(judgement, self._config.both_wrong, sure=answers.confidence >= self._config.min_confidence)
            if chosen is None:
                return Labelled(answers, None, judgement.verdict, "")
            crops = await self._crops(sample) if chosen is Label.HR else ()
        except DataError as error:
            return Labelled(answers, None, None, str(error))
        return Labelled(answers, replace(sample, label=chosen, crops=crops), judgement.verdict, "")

    async def _crops(self, sample: Sample) -> tuple[CropId, ...]:
        boxes = await self._grounding.boxes(sample)
        image = await asyncio.to_thread(self._images, sample.image)
        tau = PAPER_IOU if self._method.mapping == "iou" else self._method.coverage_tau
        crops = target_crops(boxes, image.size, self._method.mapping, tau=tau, allow_all=self._method.allow_all)
        if not crops:
            raise DataError(
                f'method.mapping = "{self._method.mapping}" maps the evidence {boxes} of {sample.sample_id} to no crop: use min_cover'
            )
        return crops
