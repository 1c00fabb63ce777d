"""Generates questions with which the doctor trains the policy and compares logprobs.

The doctor therefore needs no data set.
"""

import hashlib
import io

from PIL import Image

from awares.chat import ChatFormat
from awares.family import ModelFamily
from awares.mini.benchmark import generate_split
from awares_platform.config.method import MethodConfig
from awares_platform.engine.canary import Canary
from awares_platform.method.environment import vision_limits

_CHECKED, _TRAINED = 4, 4


def two_canaries(
    chat: ChatFormat, family: ModelFamily, method: MethodConfig
) -> tuple[Canary, Canary]:
    """Return two sets of questions: one to compare learner and engine, and one to train on.

    Learner and engine build identical sets, because the scenes are generated from a fixed seed.
    """
    pictures = [
        (hashlib.sha256(data).hexdigest(), data, sample)
        for data, sample in generate_split("test", _CHECKED + _TRAINED, seed=0)
    ]
    images = {name: Image.open(io.BytesIO(data)).convert("RGB") for name, data, _ in pictures}
    samples = [sample for _, _, sample in pictures]
    limits = vision_limits(method, family)
    checked, trained = (
        Canary.build(some, images.__getitem__, chat, limits, method.low_ratio)
        for some in (samples[:_CHECKED], samples[_CHECKED:])
    )
    return checked, trained
