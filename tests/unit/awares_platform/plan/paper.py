"""Provides the configuration of the paper's policy, and the layer sizes of a tiny model.

The sizes are small, so that tests can compute expected values by hand.
"""

from pathlib import Path

from awares_platform.config import PlatformConfig, load
from awares_platform.plan.geometry import Geometry

ROOT = Path(__file__).parents[4]
SMALL = Geometry(
    hidden=8,
    layers=3,
    heads=2,
    kv_heads=1,
    intermediate=16,
    vocab=100,
    tied=False,
    v_hidden=4,
    v_depth=5,
    v_intermediate=6,
)


def setup(*overrides: str) -> PlatformConfig:
    """Return the configuration of the paper's 7B policy, changed by `overrides`."""
    return load(ROOT / "jobs/configs/awares-7b.toml", overrides)
