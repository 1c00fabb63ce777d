"""Tests the JSON of manifests, the set of changed tensors, and which manifests are refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from awares_platform.weights.manifest import Manifest, Piece, TensorEntry, WeightsError, check_fit

HEAD = TensorEntry(
    "lm_head.weight",
    "bfloat16",
    (320, 128),
    (
        Piece(0, 20480, "s0.bin", 0, 700, "ulp", "aa"),
        Piece(20480, 40960, "s1.bin", 64, 800, "dense", "bb"),
    ),
)
NORM = TensorEntry(
    "model.norm.weight", "bfloat16", (128,), (Piece(0, 128, "s1.bin", 864, 0, "same", "cc"),)
)


def test_a_manifest_survives_json() -> None:
    manifest = Manifest(
        version=12,
        epoch=3,
        tensors=(HEAD, NORM),
        extra={"canary": {"logprobs": [[-0.25]]}},
        base=11,
        step=9,
        changed_ratio=0.03125,
        processor="5d",
        template="77",
        adapter=2.0,
    )
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    anchor = Manifest(12, 3, (HEAD,))
    assert Manifest.from_bytes(anchor.to_bytes()) == anchor
    assert anchor.base is None and anchor.adapter is None


def test_a_manifest_counts_bytes_and_shards() -> None:
    manifest = Manifest(1, 1, (HEAD, NORM))
    assert manifest.size == 700 + 800
    assert manifest.shards == {"s0.bin": 700, "s1.bin": 864}
    assert manifest.shapes == {"lm_head.weight": (320, 128), "model.norm.weight": (128,)}


def test_changed_tensors_compares_hashes_and_not_encodings() -> None:
    before = Manifest(1, 1, (HEAD, NORM))
    recoded = replace(
        HEAD,
        pieces=tuple(
            replace(piece, shard="other.bin", length=9, kind="dense") for piece in HEAD.pieces
        ),
    )
    after = Manifest(2, 1, (recoded, replace(NORM, pieces=(replace(NORM.pieces[0], blake3="dd"),))))
    assert after.changed_tensors(before) == {"model.norm.weight"}
    assert after.changed_tensors(after) == set()
    assert after.changed_tensors(None) == {"lm_head.weight", "model.norm.weight"}


def rows(manifest: Manifest) -> Any:
    return json.loads(manifest.to_bytes())


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 20480)],
        [(0, 20480), (20481, 40960)],
        [(0, 30000), (20480, 40960)],
        [(20480, 40960), (0, 20480)],
        [],
    ],
)
def test_pieces_must_cover_their_tensor(spans: list[tuple[int, int]]) -> None:
    values = rows(Manifest(1, 1, (HEAD,)))
    values["tensors"][0][3] = [[start, end, "s0.bin", 0, 9, "dense", "aa"] for start, end in spans]
    with pytest.raises(
        WeightsError,
        match=r"not a manifest.*the pieces of lm_head\.weight do not cover its 40960 elements",
    ):
        Manifest.from_bytes(json.dumps(values).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 1}',
        b'{"version": 1, "epoch": 1, "tensors": [["x"]], "extra": {}}',
    ],
)
def test_other_bytes_are_not_a_manifest(data: bytes) -> None:
    with pytest.raises(WeightsError, match="not a manifest"):
        Manifest.from_bytes(data)


def test_a_version_of_another_model_is_refused_with_all_differences() -> None:
    check_fit({"a": (2, 3)}, {"a": (2, 3)}, 4, "mini")
    with pytest.raises(WeightsError) as caught:
        check_fit({"a": (2, 3), "b": (1,)}, {"a": (2, 4), "c": (1,)}, 4, "/policies/mini")
    said = str(caught.value)
    assert "version 4 is of another model than the engine's (/policies/mini)" in said
    assert "1 missing: b; 1 unknown: c; 1 of another shape: a (2, 4) for (2, 3)" in said
    assert "policy.base" in said
