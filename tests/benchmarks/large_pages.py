"""Measures whether a policy with crops beats full resolution on pages with small print.

    PYTHONPATH=.:platform python tests/benchmarks/large_pages.py [section.key=value ...]

The first run sets `method.crop_scale=2`. Its crops show twice the detail per side of the "full"
policy's image. The second run sets `method.crop_scale=1`.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from awares.mini.digits import SplitName
from awares.mini.pages import FULL_PIXELS, generate_pages
from awares.sample import Sample
from awares_platform.config import PlatformConfig, load
from awares_platform.data.dataset import put_image, write_samples
from awares_platform.runtime import logs, session
from awares_platform.store import ObjectStore

SCALES = (2, 1)
JOBS = ("sft", "grpo", "evaluate")
POLICIES = ("full", "low", "sft", "awares")


def setup(scale: int, overrides: Sequence[str]) -> PlatformConfig:
    """Return the mini setup for pages, with crops at `scale` times full resolution."""
    return load(
        "mini",
        [
            f"run.name=large-pages-{scale}",
            "store.url=s3://awares/large-pages",
            "data.name=mini-pages",
            "data.source=store",
            f"method.max_pixels={FULL_PIXELS}",
            f"method.crop_scale={scale}",
            f"evaluate.policies={list(POLICIES)}",
            *overrides,
        ],
    )


def write_pages(config: PlatformConfig) -> None:
    """Write the train and test splits, and the labelled train split that training reads."""
    store, data = ObjectStore.from_config(config.store), config.data

    def stored(split: SplitName, count: int) -> Iterator[Sample]:
        for image, sample in generate_pages(split, count, data.seed):
            put_image(store, image)
            yield sample

    train = list(stored("train", data.train_samples))
    write_samples(store, data.name, "train", train)
    write_samples(store, data.curated, "train", train)
    write_samples(store, data.name, "test", stored("test", data.test_samples))


def measure(config: PlatformConfig, write: bool) -> dict[str, Any]:
    """Train and evaluate the policy of `config`, and return the metrics of each of POLICIES."""
    with session.session(config) as resolved:
        if write:
            write_pages(resolved)
        for job in JOBS:
            result = importlib.import_module(f"awares_platform.{job}.job").run(resolved)
            print(result.summary(resolved.store.url), flush=True)
    return result.results["policies"]


def main() -> None:
    """Run the jobs once with each of SCALES, and print one line per scale and policy."""
    logs.configure()
    found = {
        scale: measure(setup(scale, sys.argv[1:]), write=scale == SCALES[0]) for scale in SCALES
    }
    print(f"\n{'crop_scale':>10}  {'policy':<8}{'accuracy':>10}{'RTR':>7}")
    for scale, policies in found.items():
        for name, metrics in policies.items():
            accuracy, rtr = metrics["accuracy"], metrics["rtr_token"]
            print(f"{scale:>10}  {name:<8}{accuracy:>10.3f}{rtr:>7.2f}")


if __name__ == "__main__":
    main()
