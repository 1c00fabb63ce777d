"""Measures how long a GRPO pass waits for its images, with and without preparation ahead.

    PYTHONPATH=.:platform python tests/benchmarks/images_ahead.py [--steps 10] [--rounds 3]

- wait: the median time until the images of a step are ready
- compute: the median time of the main thread's computation

With a Warmer, a second thread prepares the next step's images while the main thread computes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache, partial

import torch
from PIL.Image import Image
from transformers import Qwen2_5_VLProcessor

from awares.images import decode
from awares.mini import POLICY
from awares.pixels import Prepare, prepare
from awares.tokens import VisionLimits
from awares.view import ImageView, View
from awares_platform.grpo.pixels import ViewCache
from awares_platform.grpo.warming import Warmer
from tests.rehearsal.pages import HEIGHT, WIDTH, pages

PAGES = 2
VIEWS = (View(None), View((0, 0, WIDTH // 2, HEIGHT // 2)))
PRODUCTS = 60
"""The number of matrix products that stand for the computation of a step."""


def measure(
    images: Callable[[str], Image], make: Prepare, steps: int, ahead: bool
) -> tuple[float, float]:
    """Return the median seconds of waiting and of computing per step. Step 0 does not count."""
    views = ViewCache()
    warmer = Warmer(views, images, make)
    batches = [
        [
            ImageView(str(PAGES * step + page), (WIDTH, HEIGHT), view)
            for page in range(PAGES)
            for view in VIEWS
        ]
        for step in range(steps)
    ]
    waits, computes = [], []
    matrix = torch.randn(700, 700)
    for step, batch in enumerate(batches):
        started = time.monotonic()
        warmer.end()
        views(batch, make)
        begun = time.monotonic()
        if ahead and step + 1 < steps:
            warmer.begin(partial(batches.__getitem__, step + 1))
        for _ in range(PRODUCTS):
            matrix = torch.tanh(matrix @ matrix)
        waits.append(begun - started)
        computes.append(time.monotonic() - begun)
    return statistics.median(waits[1:]), statistics.median(computes[1:])


def main() -> None:
    """Print the times of each round, first without and then with preparation ahead."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processor = Qwen2_5_VLProcessor.from_pretrained(POLICY)
    limits = VisionLimits(min_pixels=25_088, max_pixels=1_605_632)
    files = [data for data, _ in pages("train", PAGES * arguments.steps, 0)]
    print(f"{'round':>5}  {'images':<8}{'wait, s':>9}{'compute, s':>12}")
    for number in range(arguments.rounds):
        for ahead in (False, True):
            # Use a new cache, so that each measurement decodes every page once.
            images = cache(lambda name: decode(files[int(name)]))
            make = partial(
                prepare, images=images, processor=processor, limits=limits, low_ratio=0.47
            )
            wait, compute = measure(images, make, arguments.steps, ahead)
            print(
                f"{number:>5}  {'ahead' if ahead else 'at once':<8}{wait:>9.3f}{compute:>12.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
