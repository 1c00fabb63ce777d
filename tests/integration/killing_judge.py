"""A judge that ends its own process, as a lack of memory would."""

import os
from pathlib import Path

from awares.labels import Case, Judgement, MatchJudge


class KillingJudge:
    """Kills its process in each of the first `deaths` calls, and then judges like MatchJudge.

    The file `marks` counts the killed processes: it holds one byte for each.

    Example:
        KillingJudge("/tmp/marks", deaths=12)
    """

    def __init__(self, marks: str, deaths: int) -> None:
        self._marks, self._deaths = Path(marks), deaths

    async def __call__(self, case: Case) -> Judgement:
        killed = self._marks.stat().st_size if self._marks.exists() else 0
        if killed < self._deaths:
            with self._marks.open("a") as marks:
                marks.write("x")
                marks.flush()
                os._exit(1)
        return await MatchJudge()(case)
