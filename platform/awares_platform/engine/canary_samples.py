"""Chooses the samples of a run's canary: the first four usable samples of the curated data.

A sample is usable if its image is readable and its question fits the engine's context.
"""

from collections.abc import Callable, Sequence
from itertools import islice

from awares.chat import ChatFormat
from awares.errors import DataError
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.config.data import DataConfig
from awares_platform.data.dataset import Images, read_samples
from awares_platform.engine.canary import Canary, check_fit
from awares_platform.store import ObjectStore

_SAMPLES = 4
# `build` reads at most this many samples to find usable ones.
_PROBES = 64


def build(
    store: ObjectStore,
    data: DataConfig,
    chat: ChatFormat,
    limits: VisionLimits,
    low_ratio: float,
    context: int,
) -> Canary:
    """Build the canary of a run from its labelled data set, whose name is `data.curated`.

    `context` is engine.max_model_len, in tokens. Raises DataError if the data set is missing, or
    has no usable sample among its first 64.
    """
    images = Images.of(store, data)

    def check(sample: Sample) -> None:
        check_fit(sample, images(sample.image).size, chat, limits, low_ratio, context)

    samples = usable(read_samples(store, data.curated, "train", limit=_PROBES), check)
    return Canary.build(samples, images, chat, limits, low_ratio)


def usable(samples: Sequence[Sample], check: Callable[[Sample], None]) -> list[Sample]:
    """Return the first four samples for which `check` raises no DataError.

    Return fewer samples if fewer pass `check`. Raises DataError if none passes.
    """
    faults: list[DataError] = []

    def passes(sample: Sample) -> bool:
        try:
            check(sample)
        except DataError as error:
            faults.append(error)
            return False
        return True

    found = list(islice(filter(passes, samples), _SAMPLES))
    if not found:
        raise DataError(
            f"none of the first {len(samples)} samples has a readable image and a question that "
            f"fits the canary; the first: {faults[0]}"
        )
    return found
