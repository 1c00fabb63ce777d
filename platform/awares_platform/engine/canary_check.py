"""Checks each loaded version by the canary's logprobs, and by their change since version 0."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from PIL.Image import Image

from awares_platform.engine import canary as canaries
from awares_platform.engine import canary_change
from awares_platform.engine.canary import Canary, Logprobs
from awares_platform.weights.manifest import Manifest


class CanaryCheck:
    """Compares one engine's logprobs of canaries with the learner's logprobs.

    `score` returns the engine's logprobs of a sequence, as Engine.score does. `bound` is
    engine.canary_bound.
    """

    def __init__(
        self,
        score: Callable[[Sequence[int], Sequence[Image]], Awaitable[tuple[float, ...]]],
        bound: float,
    ) -> None:
        self._score, self._bound = score, bound
        # Maps a canary's digest to the engine's logprobs of version 0.
        self._start: dict[str, Logprobs] = {}

    async def measure_start(self, canary: Canary, manifest: Manifest, version: int) -> None:
        """Score the canary with version 0, so that `verify` can check the change since version 0.

        Do nothing if the engine's present `version` is not 0. Raises WeightsError in the same cases
        as `canary.expected`.
        """
        # `start_of` renders all images of the canary. In the event loop, this work would block all
        # other tasks.
        start = await asyncio.to_thread(canaries.start_of, canary, manifest)
        comparable = start is not None
        if comparable and version == 0 and canary.digest not in self._start:
            self._start[canary.digest] = await self._scores(canary)

    async def _scores(self, canary: Canary) -> Logprobs:
        prompts = await asyncio.to_thread(lambda: canary.prompts)
        rows = await asyncio.gather(*(self._score(ids, images) for ids, images in prompts))
        return canaries.tails(rows, canary)

    async def verify(self, canary: Canary, manifest: Manifest) -> tuple[float, float | None]:
        """Compare the engine's logprobs of the canary with the learner's logprobs in `manifest`.

        Return the mean absolute difference and the slope of `Change` (canary_change.py). The slope
        is None if it cannot be measured. Raises CanaryMismatch if one of them is out of bounds.
        """
        measured = await self._scores(canary)
        dlogp = canaries.check(canary, manifest, measured, self._bound)
        learned, start = canaries.start_of(canary, manifest), self._start.get(canary.digest)
        if learned is None or start is None:
            return dlogp, None
        found = canary_change.change(canaries.expected(canary, manifest), learned, measured, start)
        canary_change.check(found, manifest.version)
        return dlogp, found.slope if found.is_seen else None
