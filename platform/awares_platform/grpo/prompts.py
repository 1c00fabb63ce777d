"""Defines the run's order of prompts: every epoch is a seeded shuffle of the samples."""

import logging
from collections.abc import Sequence

from awares.errors import DataError
from awares.sample import Sample
from awares.seeds import shuffled
from awares_platform.grpo.group import Prompt

log = logging.getLogger(__name__)


class Prompts:
    """An endless sequence of prompts with random access.

    `prompts[n]` is the same in every process and after every restart. It does not depend on the
    order in which the samples are read.
    """

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        assert samples, "labelled returns at least one"
        self._samples = {sample.sample_id: sample for sample in samples}
        self._seed = seed
        self._epoch = -1
        self._order: list[str] = []

    def __len__(self) -> int:
        """The number of samples, and thus of prompts per epoch."""
        return len(self._samples)

    def __getitem__(self, number: int) -> Prompt:
        epoch, place = divmod(number, len(self._samples))
        if epoch != self._epoch:
            self._order = shuffled(self._samples, self._seed, "grpo", epoch)
            self._epoch = epoch
        return Prompt(number, epoch, self._samples[self._order[place]])


def labelled(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples that have a label, and log how many samples have none.

    Raises DataError if no sample has a label.
    """
    kept = [sample for sample in samples if sample.label is not None]
    if not kept:
        raise DataError(
            f"none of {len(samples)} curated samples has a label; run `awares curate` again"
        )
    if len(kept) < len(samples):
        first = next(sample.sample_id for sample in samples if sample.label is None)
        log.warning(
            "skipped %d samples without a label, such as %s", len(samples) - len(kept), first
        )
    return kept
