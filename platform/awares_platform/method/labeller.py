"""Derives a sample's label and target crops from the base policy's answers (paper, section 3.2).

The base policy answers each sample at low and at full resolution. The label LR says that the low
view suffices. The label HR says that the policy needs crops.

The judge compares the two answers with the truth. Its verdict and the policy's confidence in the
low answer decide the label. For the label HR, the grounding returns the boxes of the evidence, and
`Environment.cover` maps these boxes to the target crops.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace

from PIL.Image import Image

from awares.crops import Box
from awares.environment import Malformed, Request
from awares.episode_spec import grant
from awares.errors import DataError
from awares.family import ModelFamily
from awares.generate import Sampling
from awares.labels import Case, Verdict, label
from awares.sample import Label, Sample
from awares.tokens import Size
from awares_platform.config.curate import CurateConfig
from awares_platform.config.method import MethodConfig
from awares_platform.method.answers import Answers
from awares_platform.method.chat_client import EndpointUsage, ReplyMemory
from awares_platform.method.environment import environment, episode_budget, episode_spec
from awares_platform.method.grounding import Located, build_grounding, locate
from awares_platform.method.judge import build_judge
from awares_platform.method.spoken import Unpaid, Unreadable


@dataclass(frozen=True, slots=True)
class Labelled:
    """The answers to a sample, and the sample with its label and target crops.

    Example:
        Labelled(answers, sample=replace(sample, label=Label.LR), verdict=Verdict.TIE, fault="")
    """

    answers: Answers
    sample: Sample | None
    """The labelled sample, or None if it gets no label."""
    verdict: Verdict | None
    """The judge's comparison of the two answers, or None for a sample with a fault."""
    fault: str
    """Why there is no label, or "".

    It is also "" if the sample is dropped because both answers are wrong.
    """
    reason: str = ""
    """Kind of the fault, such as "refusal"."""
    dropped_boxes: int = 0
    """Number of boxes in the grounding's reply that are not used."""


class Labeller:
    """Labels samples with the configured judge, grounding and environment.

    `replies` remembers the replies of endpoints. A labeller is an async context manager, because
    judge and grounding may hold connections.
    """

    def __init__(
        self,
        method: MethodConfig,
        curate: CurateConfig,
        family: ModelFamily,
        images: Callable[[str], Image],
        replies: ReplyMemory | None = None,
    ) -> None:
        self._method, self._environment = method, environment(method)
        # The labeller only asks whether the budget allows a request, and `context` does not affect
        # this. `answer_both` has already checked that each question fits the engine.
        budget = episode_budget(method, context=0)
        self._spec = episode_spec(method, family, Sampling(), self._environment, budget)
        self._config = curate
        self._images = images
        self._stack = AsyncExitStack()
        self._judge = build_judge(self._config, replies)
        self._grounding = build_grounding(self._config, images, replies)

    async def __aenter__(self) -> "Labeller":
        for part in (self._judge, self._grounding):
            if isinstance(part, AbstractAsyncContextManager):
                await self._stack.enter_async_context(part)
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._stack.aclose()

    @property
    def usage(self) -> dict[str, EndpointUsage]:
        """The usage of the endpoints, under "judge" and "grounding".

        A judge or a grounding without an endpoint is left out. Remembered replies count, too.
        """
        parts = {"judge": self._judge, "grounding": self._grounding}
        found = {name: getattr(part, "usage", None) for name, part in parts.items()}
        return {name: one for name, one in found.items() if isinstance(one, EndpointUsage)}

    async def __call__(self, batch: Sequence[Answers]) -> list[Labelled]:
        """Label the samples concurrently, and return the results in the order of `batch`.

        Raises EndpointError if an endpoint cannot be used.
        """
        decided = await asyncio.gather(*(self._decide(answers) for answers in batch))
        asked = [one.sample for one in decided if one.sample and one.sample.label is Label.HR]
        # One reply rarely shows the unit of its coordinates, so one call asks about all samples.
        found = iter(await locate(self._grounding, asked))
        places = [
            next(found) if one.sample and one.sample.label is Label.HR else None for one in decided
        ]
        return list(await asyncio.gather(*map(self._with_crops, decided, places)))

    async def _decide(self, answers: Answers) -> Labelled:
        """Return the sample with its label. An HR sample still lacks its crops."""
        if answers.fault:
            return Labelled(answers, None, None, answers.fault, "answer")
        sample = answers.sample
        try:
            judgement = await self._judge(
                Case(
                    sample.question,
                    sample.answer,
                    answers.low,
                    answers.full,
                    sample.further_answers,
                )
            )
        except DataError as error:
            return _unusable(answers, error)
        chosen = label(
            judgement,
            self._config.both_wrong,
            sure=answers.confidence >= self._config.min_confidence,
        )
        new = replace(sample, label=chosen, crops=()) if chosen else None
        return Labelled(answers, new, judgement.verdict, "")

    async def _with_crops(self, one: Labelled, place: Located | DataError | None) -> Labelled:
        """Return an HR sample with its target crops, and any other sample as it is.

        `place` holds the evidence of an HR sample, or the error of the grounding. For any other
        sample, `place` is None.
        """
        if place is None or one.sample is None:
            return one
        if isinstance(place, DataError):
            return _unusable(one.answers, place)
        try:
            crops = await self._crops(one.sample, place.boxes)
        except DataError as error:
            return _unusable(one.answers, error)
        dropped = len(place.dropped)
        return replace(one, sample=replace(one.sample, crops=crops), dropped_boxes=dropped)

    async def _crops(self, sample: Sample, boxes: Sequence[Box]) -> tuple[str, ...]:
        image = await asyncio.to_thread(self._images, sample.image)
        request = self._environment.cover(boxes, image.size)
        whole = self._environment.cover((), image.size)
        if request is None:
            raise DataError(
                f'method.mapping = "{self._method.mapping}" maps the evidence {boxes} of '
                f"{sample.sample_id} to no crop: use min_cover"
            )
        for one in (request, whole):
            if one is not None and self._allows(one, image.size):
                return one.regions
        raise DataError(
            f"the evidence {boxes} of {sample.sample_id} needs the crops "
            f"{list(request.regions)}, which exceed method.max_crops or method.max_visual_tokens: "
            "raise them"
        )

    def _allows(self, request: Request, size: Size) -> bool:
        """Return whether the budget allows `request`, so that SFT may teach this request."""
        first = self._environment.first_view(size)
        return not isinstance(grant(self._spec, request, [first], size), Malformed)


def _unusable(answers: Answers, error: DataError) -> Labelled:
    reason = error.reason if isinstance(error, Unreadable | Unpaid) else "data"
    return Labelled(answers, None, None, str(error), reason)
