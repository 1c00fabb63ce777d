"""Mixes several data sets, called parts, into one, by weights and caps.

    data.mix    chartqa, weight 1, most 10,000 --+
                docvqa, weight 2 ----------------+--> datasets/<data.name>/test and train

A train row that is in the test split of any part is left out.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from awares.errors import ConfigError, DataError
from awares.sample import Sample
from awares_platform.config.data import DataConfig, MixPart
from awares_platform.data.dataset import Split, read_split, write_samples
from awares_platform.data.intake.seen import Seen
from awares_platform.data.manifest import pack_indexes, read_manifest
from awares_platform.data.packs import PackPlace, PackWriter, decode_index
from awares_platform.runtime.job_lease import dataset_lease, hold
from awares_platform.store import ObjectStore


@dataclass(frozen=True, slots=True)
class MixedSplit:
    """The number of rows that each part gives to a split.

    `left_out` is the number of train rows that are left out because a test split has them, too.

    Example:
        MixedSplit("train", {"chartqa": 10_000, "docvqa": 20_000}, left_out=12)
    """

    split: str
    rows: Mapping[str, int]
    left_out: int = 0

    def __str__(self) -> str:
        parts = ", ".join(f"{count:,} of {name}" for name, count in self.rows.items())
        left = f"; {self.left_out:,} train rows are in a test split" if self.left_out else ""
        return f"{self.split}: {sum(self.rows.values()):,} rows ({parts}){left}"


def mix(store: ObjectStore, data: DataConfig) -> list[MixedSplit]:
    """Write the splits of the data set `data.name` from the parts in `data.mix`.

    Raises ConfigError without parts, or if the data set is its own part.
    Raises DataError if a part has no train split.
    Raises JobRefused if another job writes the data set.
    """
    parts = data.parts()
    if not parts or data.name in parts:
        raise ConfigError(
            f"data.mix must name the data sets to mix into data.name={data.name!r}, and not that "
            "data set itself: write, for example, [data.mix] and chartqa = {weight = 1.0}"
        )
    with hold(store, dataset_lease(data.name), "data mix", "data.name"):
        tests = {name: found for name in parts if (found := _test(store, name))}
        held = Seen()
        for found in tests.values():
            held.add_split(found)
        trains = {name: read_split(store, name, "train") for name in parts}
        kept = {name: _unseen(found, held) for name, found in trains.items()}
        rows = {name: list(found.samples) for name, found in tests.items()}
        written = [_write(store, data, "test", rows, data.test_samples)] if rows else []
        left_out = sum(len(found.samples) - len(kept[name]) for name, found in trains.items())
        train = _write(store, data, "train", kept, data.train_samples)
        return [*written, replace(train, left_out=left_out)]


def _test(store: ObjectStore, name: str) -> Split | None:
    try:
        return read_split(store, name, "test")
    except DataError:
        return None


def _unseen(found: Split, held: Seen) -> list[Sample]:
    """Return the rows of a train split that no test split has."""
    pairs = zip(found.samples, found.columns, strict=True)
    return [sample for sample, columns in pairs if not held.has_row(sample, columns)]


def _write(
    store: ObjectStore,
    data: DataConfig,
    split: str,
    rows: Mapping[str, Sequence[Sample]],
    most: int,
) -> MixedSplit:
    """Draw the rows of each part, and write them in a random order that depends on data.seed."""
    parts = {name: part for name, part in data.parts().items() if name in rows}
    counts = shares(most, parts, {name: len(found) for name, found in rows.items()})
    chance = random.Random(f"{data.seed}/{split}")
    drawn = [
        replace(sample, sample_id=f"{name}/{sample.sample_id}")
        for name, count in counts.items()
        for sample in chance.sample(rows[name], count)
    ]
    chance.shuffle(drawn)
    packs = PackWriter(store)
    packs.include(_places(store, parts, {sample.image for sample in drawn}))
    recipe = {
        "source": "data.mix",
        "parts": {name: part.model_dump() for name, part in parts.items()},
        "content": {name: read_manifest(store, name, split).get("content") for name in parts},
        "seed": data.seed,
        "rows": counts,
    }
    write_samples(store, data.name, split, drawn, data.shard_rows, recipe, packs)
    return MixedSplit(split, counts)


def _places(
    store: ObjectStore, parts: Mapping[str, MixPart], images: set[str]
) -> dict[str, PackPlace]:
    """Return the place of each packed image, by hash. Skip images that are in no pack."""
    splits = [(name, split) for name in parts for split in ("train", "test")]
    return {
        digest: place
        for key in pack_indexes(store, splits)
        for digest, place in decode_index(store.get(key)).items()
        if digest in images
    }


def shares(most: int, parts: Mapping[str, MixPart], available: Mapping[str, int]) -> dict[str, int]:
    """Divide up to `most` rows among the parts by their weights.

    A part gives at most its cap (`MixPart.most`) and its `available` rows.

    Example:
        shares(90, {"a": MixPart(weight=2), "b": MixPart(most=20)}, {"a": 100, "b": 100})
        # {"a": 70, "b": 20}
    """
    limit = {
        name: min(available[name], part.most or available[name]) for name, part in parts.items()
    }
    given: dict[str, int] = {}
    while len(given) < len(parts):
        left = most - sum(given.values())
        weights = {name: part.weight for name, part in parts.items() if name not in given}
        exact = {name: left * weight / sum(weights.values()) for name, weight in weights.items()}
        if full := {name: limit[name] for name in exact if limit[name] <= exact[name]}:
            given |= full
            continue
        given |= {name: int(share) for name, share in exact.items()}
        by_rest = sorted(exact, key=lambda name: int(exact[name]) - exact[name])
        for name in by_rest[: most - sum(given.values())]:
            given[name] += 1
    return {name: given[name] for name in parts}
