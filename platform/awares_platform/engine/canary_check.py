"""Checks the canary of each loaded version, and its change since version 0."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from PIL.Image import Image

from awares_platform.engine import canary as canaries
from awares_platform.engine import canary_change
from awares_platform.engine.canary import Canary, Logprobs
from awares_platform.weights.manifest import Manifest


class CanaryCheck:
    """The canaries of one engine.

    `score` returns the engine's logprobs of a sequence, as Engine.score does. `bound` is
    engine.canary_bound.
    """

    def __init__(
        self,
        score: Callable[[Sequence[int], Sequence[Image]], Awaitable[tuple[float, ...]]],
        bound: float,
    ) -> None:
        self._score, self._bound = score, bound
        # The canary logprobs of version 0, by the canary's digest.
        self._start: dict[str, Logprobs] = {}

    async def measure_start(self, canary: Canary, manifest: Manifest, version: int) -> None:
        """Score the canary with version 0, if the engine still plays it and the learner did so.

        `version` is the version that the engine plays.
        """
        comparable = canaries.start_of(canary, manifest) is not None
        if comparable and version == 0 and canary.digest not in self._start:
            self._start[canary.digest] = await self._scores(canary)

    async def _scores(self, canary: Canary) -> Logprobs:
        rows = await asyncio.gather(*(self._score(ids, images) for ids, images in canary.prompts))
        return canaries.tails(rows, canary)

    async def verify(self, canary: Canary, manifest: Manifest) -> tuple[float, float | None]:
        """Check the canary with the present weights, against the logprobs in `manifest`.

        Return the mean |dlogp|, and the slope of the change since version 0 if it is seen. Raises
        CanaryMismatch in the same cases as `load_version`.
        """
        measured = await self._scores(canary)
        dlogp = canaries.check(canary, manifest, measured, self._bound)
        learned, start = canaries.start_of(canary, manifest), self._start.get(canary.digest)
        if learned is None or start is None:
            return dlogp, None
        found = canary_change.change(canaries.expected(canary, manifest), learned, measured, start)
        canary_change.check(found, manifest.version)
        return dlogp, found.slope if found.is_seen else None
