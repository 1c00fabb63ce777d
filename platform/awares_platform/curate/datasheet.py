"""Makes the datasheet of a curated set: what it holds, how it was made, and what it has cost.

Each shard records its own counts. The datasheet is thus complete even after a resumed curation.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from awares.errors import DataError
from awares.sample import Label
from awares_platform.config.curate import CurateConfig
from awares_platform.curate.agreement import agreement_key
from awares_platform.curate.label_shard import COUNTS
from awares_platform.data.dataset import read_manifest
from awares_platform.data.rows import decode_rows
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

SPLIT = "train"
_TOKENS = ("requests", "input_tokens", "output_tokens")


def datasheet(store: ObjectStore, curate: CurateConfig, name: str) -> dict[str, Any]:
    """Return the datasheet of the curated set `name` as a JSON object.

    The prices in `curate` determine the costs. Raises DataError if `name` is no finished curated
    set.
    """
    manifest = read_manifest(store, name, SPLIT)
    made = manifest.get("recipe")
    if not isinstance(made, dict) or "settings" not in made:
        raise DataError(f"{name} is no curated set: name one that `awares curate` has written")
    labels, crops, verdicts = Counter[str](), Counter[str](), Counter[str]()
    left_out, used, boxes = Counter[str](), {}, 0
    for key in manifest["shards"]:
        rows = decode_rows(store.get(key), key)
        labels.update(sample.label.value for sample in rows.samples if sample.label)
        crops.update(crop for sample in rows.samples for crop in sample.crops)
        verdicts.update(columns.get("verdict", "") for columns in rows.columns)
        counts = json.loads(rows.metadata.get(COUNTS, "{}"))
        left_out.update(counts.get("left out", {}))
        boxes += counts.get("dropped boxes", 0)
        _add(used, counts.get("used", {}))
    count = labels.total()
    return {
        "name": name,
        "samples": count,
        "labels": dict(labels),
        "HR share": labels[Label.HR.value] / count if count else 0.0,
        "crops": dict(crops.most_common()),
        "verdicts": dict(verdicts),
        "left out": dict(left_out.most_common()),
        "dropped boxes": boxes,
        "agreement": _agreement(store, name),
        "used": {part: one | {"cost": _cost(curate, part, one)} for part, one in used.items()},
        "rules": made["settings"],
        "versions": made.get("versions", {}),
    }


def _add(used: dict[str, dict[str, int]], more: Mapping[str, Mapping[str, int]]) -> None:
    """Add the requests and tokens of a shard to `used`, with the keys "judge" and "grounding"."""
    for part, counts in more.items():
        total = used.setdefault(part, dict.fromkeys(_TOKENS, 0))
        for key in _TOKENS:
            total[key] += counts.get(key, 0)


def _cost(curate: CurateConfig, part: str, used: Mapping[str, int]) -> float:
    """Return the cost of the tokens that `part` ("judge" or "grounding") has used."""
    endpoint = curate.judge_endpoint if part == "judge" else curate.grounding_endpoint
    return endpoint.cost(used["input_tokens"], used["output_tokens"])


def _agreement(store: ObjectStore, name: str) -> dict[str, Any] | None:
    """Return the last measured agreement of two judges, or None if none was measured."""
    try:
        return json.loads(store.get(agreement_key(name)))
    except NotFound:
        return None
