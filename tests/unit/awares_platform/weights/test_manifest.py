"""Manifests and HEAD: JSON and back, differences, and what no manifest gets."""

import pytest

from awares_platform.weights.manifest import Head, Manifest, Published, TensorEntry, WeightsError, check_fit

HEAD = TensorEntry("lm_head.weight", "bfloat16", (320, 128), "e1-00000.bin", 0, 81920, "aa")
NORM = TensorEntry("model.norm.weight", "bfloat16", (128,), "e1-00001.bin", 64, 320, "bb")


def test_a_manifest_survives_json() -> None:
    manifest = Manifest(12, 3, (HEAD, NORM), {"step": 9, "canary": {"logprobs": [[-0.25]]}})
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_a_manifest_counts_bytes_and_shards() -> None:
    manifest = Manifest(1, 1, (HEAD, NORM))
    assert manifest.size == 81920 + 256
    assert manifest.shards == {"e1-00000.bin": 81920, "e1-00001.bin": 320}


def test_changed_names_what_differs_by_hash() -> None:
    before = Manifest(1, 1, (HEAD, NORM))
    after = Manifest(2, 1, (HEAD, TensorEntry("model.norm.weight", "bfloat16", (128,), "e1-00000.bin", 0, 256, "cc")))
    assert after.changed(before) == {"model.norm.weight"}
    assert after.changed(after) == set()
    assert after.changed(None) == {"lm_head.weight", "model.norm.weight"}


def test_head_survives_json_and_finds_versions() -> None:
    head = Head(2, (Published(12, "aa"), Published(11, "bb")))
    assert Head.from_bytes(head.to_bytes()) == head
    assert head.version == 12
    assert head.find(11) == Published(11, "bb")
    assert head.find(10) is None
    assert Head(1).version is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 1, "epoch": 1, "tensors": [{"name": "x"}], "extra": {}}']
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="no manifest"):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("data", [b"", b"7", b'{"epoch": 1}', b'{"epoch": 1, "published": [{"version": "x", "manifest": ""}]}'])
def test_what_is_no_head_is_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="no HEAD"):
        Head.from_bytes(data)


def test_a_version_of_another_model_is_named_with_both_sides() -> None:
    check_fit({"a": (2, 3)}, {"a": (2, 3)}, 4, "mini")
    with pytest.raises(WeightsError) as caught:
        check_fit({"a": (2, 3), "b": (1,)}, {"a": (2, 4), "c": (1,)}, 4, "/policies/mini")
    said = str(caught.value)
    assert "version 4 is of another model than the engine's (/policies/mini)" in said
    assert "1 missing: b; 1 unknown: c; 1 of another shape: a (2, 4) for (2, 3)" in said
    assert "policy.base" in said
