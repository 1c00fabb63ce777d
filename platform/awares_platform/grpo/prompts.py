"""The run's order of prompts: every epoch is a seeded shuffle of the samples."""

from collections.abc import Sequence

from awares.sample import Sample
from awares.seeds import shuffled
from awares_platform.grpo.group import Prompt


class Prompts:
    """An endless, random-access sequence of prompts: `prompts[n]` is the same in every process and after every restart, however the
    samples were read.
    """

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        assert samples, "read_samples returns at least one"
        self._samples = {sample.sample_id: sample for sample in samples}
        self._seed = seed
        self._epoch = -1
        self._order: list[str] = []

    def __getitem__(self, number: int) -> Prompt:
        epoch, place = divmod(number, len(self._samples))
        if epoch != self._epoch:
            self._order = shuffled(self._samples, self._seed, "grpo", epoch)
            self._epoch = epoch
        return Prompt(number, epoch, self._samples[self._order[place]])
