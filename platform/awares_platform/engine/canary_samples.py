"""Chooses the samples of a run's canary.

The canary uses the first readable samples of the curated data. Learner and engine thus build the
same prompts. `canary.py` builds the prompts and compares their logprobs.
"""

from collections.abc import Callable, Sequence
from itertools import islice

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.errors import DataError
from awares.family import ModelFamily
from awares.sample import Sample
from awares_platform.config.method import MethodConfig
from awares_platform.data.dataset import Images, read_samples
from awares_platform.engine.canary import Canary
from awares_platform.method.environment import vision_limits
from awares_platform.store import ObjectStore

_SAMPLES = 4
# The number of samples in which `build` looks for readable images.
_PROBES = 64


def build(
    store: ObjectStore,
    curated: str,
    images: Images,
    chat: ChatFormat,
    family: ModelFamily,
    method: MethodConfig,
) -> Canary:
    """Build the canary of a run from `curated`, the name of its labelled data set.

    Raises DataError if the data set is missing or none of its first samples has a readable image.
    """
    samples = readable(read_samples(store, curated, "train", limit=_PROBES), images)
    return Canary.build(samples, images, chat, vision_limits(method, family), method.low_ratio)


def readable(samples: Sequence[Sample], images: Callable[[str], Image]) -> list[Sample]:
    """Return the first four samples with a readable image.

    The result is shorter if fewer samples have a readable image. Raises DataError if no image is
    readable.
    """
    faults: list[DataError] = []

    def reads(sample: Sample) -> bool:
        try:
            images(sample.image)
        except DataError as error:
            faults.append(error)
            return False
        return True

    found = list(islice(filter(reads, samples), _SAMPLES))
    if not found:
        raise DataError(
            f"none of the first {len(samples)} curated samples has a readable image; "
            f"the first: {faults[0]}"
        )
    return found
