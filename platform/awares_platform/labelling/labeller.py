"""From two answers to a label and target crops (paper, section 3.2).

low answer, full answer --judge--> verdict, confidence --> LR, or HR --grounding--> boxes --method.mapping--> crops
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace

from PIL.Image import Image

from awares.crops import CropId, target_crops
from awares.errors import DataError
from awares.labels import Case, Verdict, label
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.labelling.answers import Answers
from awares_platform.labelling.grounding import build_grounding
from awares_platform.labelling.judge import build_judge

PAPER_IOU = 0.5


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


class Labeller:
    """Labels samples by the configured judge and grounding. An async context manager: it may hold connections."""

    def __init__(self, config: PlatformConfig, images: Callable[[str], Image]) -> None:
        self._method = config.method
        self._config = config.curate
        self._images = images
        self._stack = AsyncExitStack()
        self._judge = build_judge(self._config)
        self._grounding = build_grounding(self._config, images)

    async def __aenter__(self) -> "Labeller":
        for part in (self._judge, self._grounding):
            if isinstance(part, AbstractAsyncContextManager):
                await self._stack.enter_async_context(part)
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
            judgement = await self._judge(
                Case(sample.question, sample.answer, answers.low, answers.full)
            )
            chosen = label(
                judgement,
                self._config.both_wrong,
                sure=answers.confidence >= self._config.min_confidence,
            )
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
        crops = target_crops(
            boxes, image.size, self._method.mapping, tau=tau, allow_all=self._method.allow_all
        )
        if not crops:
            raise DataError(
                f'method.mapping = "{self._method.mapping}" maps the evidence {boxes} of {sample.sample_id} to no crop: use min_cover'
            )
        return crops
