"""Publishes one version of the weights after another until the process is killed.

Usage: `python publishing_process.py <store settings as JSON> <run>`
"""

import sys

import torch
from torch import Tensor

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.weights import Cadence, Publisher

ELEMENTS = 200_000


def weights(version: int) -> dict[str, Tensor]:
    """Return the weights of one version.

    From index `version` on, every 101st element of `large` differs from the elements of version 0.
    """
    large = torch.randn(ELEMENTS, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    large.view(torch.int16)[version::101] += version
    return {"large": large, "norm": torch.ones(8, dtype=torch.bfloat16)}


if __name__ == "__main__":
    publisher = Publisher(
        ObjectStore(StoreConfig.model_validate_json(sys.argv[1])),
        sys.argv[2],
        cadence=Cadence(anchor_every=2),
    )
    while True:
        publisher.publish(version := (publisher.version or 0) + 1, weights(version))
