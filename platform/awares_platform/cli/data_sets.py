"""Implements `awares data ls|show|stats|rm|mix|sheet` for the data sets in the store."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from awares.errors import ConfigError, DataError
from awares.sample import Label, Sample
from awares_platform.cli.data_page import page
from awares_platform.config.data import DataConfig
from awares_platform.data.dataset import read_split
from awares_platform.data.image_sizes import sample_sizes
from awares_platform.data.images import Images
from awares_platform.data.intake.mix import mix
from awares_platform.data.manifest import read_manifest, split_prefix
from awares_platform.runtime.job_lease import dataset_lease, hold
from awares_platform.store import ObjectStore

SHOWN = 50
"""The number of samples that the page shows, drawn at random with a fixed seed."""
_MOST_KINDS = 12
_RULES = ("judge", "min_confidence", "both_wrong")


def run(
    store: ObjectStore, data: DataConfig, action: str, name: str, split: str, out: Path | None
) -> str:
    """Run one action, and return the text for the terminal.

    An empty `split` means all finished splits of the data set. Raises DataError if the data set or
    the split is missing.
    """
    if action == "ls":
        return "\n".join(listing(store))
    if action == "mix":
        return "\n".join(map(str, mix(store, data)))
    splits = [found for found in _splits(store, name) if split in ("", found)]
    if not splits:
        raise DataError(
            f"there is no finished data set {'/'.join(filter(None, (name, split))) or '(no name)'} "
            f"in {store.config.url}; `awares data ls` lists all"
        )
    if action == "rm":
        return _remove(store, name, split)
    if action == "stats":
        return "\n\n".join("\n".join(stats(store, data, name, one)) for one in splits)
    return show(store, data, name, splits[0], out or Path(f"{name}-{splits[0]}.html"))


def require_page(out: Path | None) -> None:
    """Raise ConfigError if `out`, the path of a page, does not end in .html.

    With the ending .json, the page would overwrite the datasheet's JSON file.
    """
    if out is not None and out.suffix.lower() != ".html":
        right = out.parent / f"{out.stem or 'page'}.html"
        raise ConfigError(
            f"--out={out} is no page: name a file that ends in .html, such as {right}"
        )


def show(
    store: ObjectStore,
    data: DataConfig,
    name: str,
    split: str,
    path: Path,
    facts: Mapping[str, object] | None = None,
) -> str:
    """Write a page with `facts` and fifty samples of a split, and return a line about it."""
    samples = read_split(store, name, split).samples
    drawn = random.Random(0).sample(samples, min(SHOWN, len(samples)))
    images = _images(store, data, name, [split])
    path.write_text(page(f"{name}/{split}", drawn, images, facts), "utf-8")
    return f"{len(drawn)} of {len(samples)} samples of {name}/{split} are shown in {path}"


def sheet(store: ObjectStore, data: DataConfig, facts: Mapping[str, Any], out: Path | None) -> str:
    """Write the datasheet `facts` as a page and as JSON, and return the lines that name both."""
    name = facts["name"]
    path = out or Path(f"{name}-train.html")
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return f"{show(store, data, name, 'train', path, facts)}\nits datasheet is in {beside}, too"


def listing(store: ObjectStore) -> Iterator[str]:
    """Yield a header line, then one line for each finished split."""
    yield f"{'rows':>9}  data set"
    for name, split in _finished(store):
        manifest = read_manifest(store, name, split)
        yield f"{manifest.get('rows', '?'):>9}  {name}/{split}{_origin(_recipe(manifest))}"


def _origin(recipe: Mapping[str, Any]) -> str:
    """Return the source of an imported data set, or the labelling rules of a curated one."""
    if source := recipe.get("source"):
        return f"  from {source}"
    rules = recipe.get("settings")
    if not isinstance(rules, dict):
        return ""
    judge, least, wrong = (rules.get(f"curate.{key}") for key in _RULES)
    return f"  judge {judge}, min_confidence {least}, both_wrong {wrong}"


def _finished(store: ObjectStore) -> Iterator[tuple[str, str]]:
    for entry in store.list("datasets/"):
        parts = entry.key.split("/")
        if len(parts) == 4 and parts[3] == "manifest.json":
            yield parts[1], parts[2]


def _splits(store: ObjectStore, name: str) -> list[str]:
    return [split for found, split in _finished(store) if found == name]


def _recipe(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    recipe = manifest.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _images(store: ObjectStore, data: DataConfig, name: str, splits: Sequence[str]) -> Images:
    return Images(store, data.image_cache, splits=[(name, split) for split in splits])


def stats(store: ObjectStore, data: DataConfig, name: str, split: str) -> Iterator[str]:
    """Yield lines about a split: its rows, images, answers, kinds, labels, crops and so on."""
    found = read_split(store, name, split)
    samples = found.samples
    digests = list({sample.image for sample in samples})
    yield f"{name}/{split}"
    yield f"  rows       {len(samples):,}, and {len(found.faults):,} unusable"
    yield f"  images     {len(digests):,}{_sizes(_images(store, data, name, [split]), digests)}"
    answers = sum(len(sample.answers) for sample in samples)
    boxed = sum(bool(sample.evidence) for sample in samples)
    yield f"  answers    {answers / len(samples):.1f} per row; {boxed:,} rows have evidence"
    yield from _histogram("kinds", Counter(sample.kind for sample in samples if sample.kind))
    yield from _histogram("scorers", Counter(one.scorer for one in samples if one.scorer))
    yield from _labels(samples)
    counts = _recipe(read_manifest(store, name, split)).get("counts", {})
    yield from _histogram("left out", Counter(counts.get("refused", {})))


def _sizes(images: Images, digests: Sequence[str]) -> str:
    """Return the median and the largest size of some images as text."""
    sizes = sorted(sample_sizes(images, digests), key=lambda size: size[0] * size[1])
    if not sizes:
        return ""
    (width, height), (most_width, most_height) = sizes[len(sizes) // 2], sizes[-1]
    return f"; median {width} x {height}, largest {most_width} x {most_height} of {len(sizes)}"


def _labels(samples: Sequence[Sample]) -> Iterator[str]:
    labels = Counter(sample.label for sample in samples if sample.label)
    if not labels:
        return
    share = labels[Label.HR] / labels.total()
    yield f"  labels     {labels[Label.LR]:,} LR, {labels[Label.HR]:,} HR ({share:.1%} HR)"
    yield from _histogram("crops", Counter(crop for one in samples for crop in one.crops))


def _histogram(title: str, counts: Counter[str]) -> Iterator[str]:
    for index, (name, count) in enumerate(counts.most_common(_MOST_KINDS)):
        yield f"  {title if index == 0 else '':<9}  {count:>7,}  {name}"
    if len(counts) > _MOST_KINDS:
        yield f"  {'':<9}  and {len(counts) - _MOST_KINDS:,} others"


def _remove(store: ObjectStore, name: str, split: str) -> str:
    """Delete a split or a whole data set. Its images stay, because other sets may share them."""
    with hold(store, dataset_lease(name), "data rm", "NAME"):
        for one in _splits(store, name):
            if split in ("", one):
                # Delete the manifest first. Without it, no reader uses the half-deleted split.
                store.delete(f"{split_prefix(name, one)}manifest.json")
        prefix = split_prefix(name, split) if split else f"datasets/{name}/"
        kept = dataset_lease(name)
        keys = [entry.key for entry in store.list(prefix) if entry.key != kept]
        for key in keys:
            store.delete(key)
    return f"deleted {prefix} in {store.config.url}; images stay, because data sets share them"
