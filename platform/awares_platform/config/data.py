"""[data]: the data set of a run, and how much of it is used."""

from typing import Literal

from pydantic import Field

from awares_platform.config.base import Section

CURATED = "-curated"
"""Curation appends this to the name of the data set that it labels."""


class DataConfig(Section):
    """A data set in the store: datasets/<name>/<split>/*.parquet beside images/<hash>."""

    name: str = Field(default="awares-mini", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the data set; curation writes <name>-curated."""
    source: Literal["mini", "store"] = "mini"
    """"mini" generates AwaRes-Mini once; "store" expects the splits train and test in the store.

    dataset.write_samples writes a split."""
    train_samples: int = Field(default=12288, ge=1)
    """Questions of the train split to use (and, for "mini", to generate)."""
    test_samples: int = Field(default=2048, ge=1)
    """Questions of the test split to use (and, for "mini", to generate)."""
    seed: int = 0
    """Seed of AwaRes-Mini's scenes; run.seed does not change the data."""
    shard_rows: int = Field(default=512, ge=1)
    """Rows per parquet shard: the unit in which curation resumes."""
    image_cache: str = ""
    """Directory of the local image cache; "" takes one in the system's temporary directory."""

    @property
    def curated(self) -> str:
        """Name of the curated data set."""
        return f"{self.name}{CURATED}"
