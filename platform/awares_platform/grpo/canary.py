"""The run's canary: both sides build it from the first samples of the curated data, so that they score the same thing."""

from awares.chat import ChatFormat
from awares.tokens import VisionLimits
from awares_platform.config import PlatformConfig
from awares_platform.dataset import Images, read_samples
from awares_platform.store import ObjectStore
from awares_platform.weights.canary import Canary

_SAMPLES = 4


def build(config: PlatformConfig, store: ObjectStore, images: Images, chat: ChatFormat) -> Canary:
    """Raises DataError when the curated data or their images are missing."""
    method = config.method
    samples = read_samples(store, f"{config.data.name}-curated", "train", limit=_SAMPLES)
    limits = VisionLimits(min_pixels=method.min_pixels, max_pixels=method.max_pixels)
    return Canary.build(samples, images, chat, limits, method.low_ratio)
