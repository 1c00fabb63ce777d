"""The run's canary: both sides build it from the first readable samples of the curated data, so that they score the same thing."""

from collections.abc import Callable, Sequence
from itertools import islice

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.errors import DataError
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images, read_samples
from awares_platform.engine.canary import Canary
from awares_platform.method.environment import vision_limits
from awares_platform.method.family import model_family
from awares_platform.store import ObjectStore

_SAMPLES = 4
_PROBES = 64  # samples to find as many readable ones among


def build(config: PlatformConfig, store: ObjectStore, images: Images, chat: ChatFormat) -> Canary:
    """Raises DataError when the curated data are missing, or all the images of their first samples."""
    method = config.method
    samples = readable(read_samples(store, config.data.curated, "train", limit=_PROBES), images)
    limits = vision_limits(method, model_family(config.policy))
    return Canary.build(samples, images, chat, limits, method.low_ratio)


def readable(samples: Sequence[Sample], images: Callable[[str], Image]) -> list[Sample]:
    """The first few samples whose image can be read."""
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
            f"none of the first {len(samples)} curated samples has a readable image; the first: {faults[0]}"
        )
    return found
