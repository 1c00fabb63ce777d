"""The section [data]: the data set of a run, and the number of its samples to use."""

from typing import Any, Literal

from pydantic import Field, field_validator

from awares_platform.config.base import Section, Table

CURATED = "-curated"
"""Text that follows the data set's name in the name of a curated set."""


class MixPart(Section):
    """A data set in a mix: its weight, and the largest number of rows that it gives to a split."""

    weight: float = Field(default=1.0, gt=0)
    most: int | None = Field(default=None, ge=1)


class DataConfig(Section):
    """A data set in the store.

    Its samples are in datasets/<name>/<split>/*.parquet. Each image is the object images/<hash>, or
    a part of an object in images/packs/.
    """

    name: str = Field(default="awares-mini", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the data set. Curation writes <name>-curated-<digest of the recipe>."""
    labels: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]*)?$")
    """Name of the curated set that sft and grpo read. "" means the set that `awares curate` writes
    with this setup, or else labels of your own in <name>-curated."""
    source: Literal["mini", "store"] = "mini"
    """Origin of the data set. "mini" generates AwaRes-Mini once. "store" expects the splits train
    and test in the store; `awares import` writes such a split."""
    train_samples: int = Field(default=12288, ge=1)
    """Number of training questions to use. The source "mini" generates this number."""
    test_samples: int = Field(default=2048, ge=1)
    """Number of test questions to use. The source "mini" generates this number."""
    held_out: int = Field(default=128, ge=0)
    """Largest number of curated training questions that sft and grpo do not train on, but measure
    themselves with. At most a tenth of the questions is held out. No image is in both parts, and
    the test split is not touched. 0 holds nothing out."""
    seed: int = 0
    """Seed of AwaRes-Mini's scenes; run.seed does not change the data."""
    shard_rows: int = Field(default=512, ge=1)
    """Rows per parquet shard. When curation resumes, it keeps its finished shards."""
    mix: Table = {}
    """Data sets that `awares data mix` mixes into this one. Each is a table with the keys weight
    and most, such as chartqa = {weight = 1.0, most = 10000}. The mix has up to train_samples and
    test_samples rows."""
    image_cache: str = ""
    """Directory of the local image cache. "" creates one in the system's temporary directory."""

    @property
    def curated(self) -> str:
        """Name of the curated set: `labels`, or <name>-curated if `labels` is empty."""
        return self.labels or f"{self.name}{CURATED}"

    @field_validator("mix")
    @classmethod
    def each_part_has_a_weight(cls, mix: dict[str, Any]) -> dict[str, Any]:
        for part in mix.values():
            MixPart.model_validate(part)
        return mix

    def parts(self) -> dict[str, MixPart]:
        """Return the parts of the mix by their names."""
        return {name: MixPart.model_validate(part) for name, part in self.mix.items()}

    @property
    def answers_prefix(self) -> str:
        """Key prefix of the base policy's answers, which curation keeps."""
        return f"datasets/{self.name}/answers/"

    @property
    def replies_prefix(self) -> str:
        """Key prefix of the stored replies of the judge and the grounding model."""
        return f"datasets/{self.name}/replies/"
