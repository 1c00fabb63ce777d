"""Chooses the samples of a run's canary.

A sample is usable if its image is readable and its question fits the engine's context. The canary
uses the first four usable samples of the curated data. Learner and engine thus choose the same
samples.
`canary.py` builds prompts from the samples and compares the prompts' logprobs.
"""

from collections.abc import Callable, Sequence
from itertools import islice

from awares.chat import ChatFormat
from awares.errors import DataError
from awares.family import ModelFamily
from awares.sample import Sample
from awares_platform.config.method import MethodConfig
from awares_platform.data.dataset import Images, read_samples
from awares_platform.engine.canary import Canary, check_fit
from awares_platform.method.environment import vision_limits
from awares_platform.store import ObjectStore

_SAMPLES = 4
# `build` looks for usable samples among the first _PROBES samples.
_PROBES = 64


def build(
    store: ObjectStore,
    curated: str,
    images: Images,
    chat: ChatFormat,
    family: ModelFamily,
    method: MethodConfig,
    context: int,
) -> Canary:
    """Build the canary of a run from its labelled data set, whose name is `curated`.

    `context` is engine.max_model_len. Raises DataError if the data set is missing, or if none of
    its first 64 samples is usable.
    """
    limits, ratio = vision_limits(method, family), method.low_ratio

    def check(sample: Sample) -> None:
        check_fit(sample, images(sample.image).size, chat, limits, ratio, context)

    samples = usable(read_samples(store, curated, "train", limit=_PROBES), check)
    return Canary.build(samples, images, chat, limits, ratio)


def usable(samples: Sequence[Sample], check: Callable[[Sample], None]) -> list[Sample]:
    """Return the first four samples for which `check` raises no DataError.

    The result is shorter if fewer samples are usable. Raises DataError if no sample is usable.
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
