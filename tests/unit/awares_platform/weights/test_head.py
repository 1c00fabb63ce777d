"""Tests the JSON of HEAD, and that a reader of a version downloads as few bytes as possible."""

import pytest

from awares_platform.weights.head import Form, Head, Hop, PublishedVersion
from awares_platform.weights.manifest import WeightsError


def delta(version: int, size: int, base: int | None = None) -> PublishedVersion:
    base = version - 1 if base is None else base
    return PublishedVersion(version, (Form("manifest.json", base, size, f"d{version}"),))


def anchor(version: int, size: int) -> PublishedVersion:
    return PublishedVersion(version, (Form("manifest.json", None, size, f"a{version}"),))


def both(version: int, size: int, whole: int) -> PublishedVersion:
    anchored = Form("anchor.json", None, whole, f"a{version}")
    return PublishedVersion(version, (*delta(version, size).forms, anchored))


HEAD = Head(2, (delta(14, 12), both(13, 11, 100), delta(12, 10), delta(11, 9), anchor(10, 90)))


def hops(*named: tuple[int, str]) -> tuple[Hop, ...]:
    found = (HEAD.find(version) for version, _ in named)
    return tuple(
        Hop(entry.version, next(form for form in entry.forms if form.digest == digest))
        for entry, (_, digest) in zip(found, named, strict=True)
        if entry is not None
    )


def test_head_survives_json_and_finds_versions() -> None:
    assert Head.from_bytes(HEAD.to_bytes()) == HEAD
    assert HEAD.version == 14
    assert HEAD.find(11) == delta(11, 9)
    assert HEAD.find(9) is None
    assert Head(1).version is None
    assert both(13, 11, 100).anchor == Form("anchor.json", None, 100, "a13")
    assert delta(12, 1).anchor is None


def test_the_path_with_the_fewest_bytes_is_chosen() -> None:
    # Version 14 costs 100 + 12 bytes from the anchor of version 13, but 90 + 9 + 10 + 11 + 12 bytes
    # from the anchor of version 10.
    assert HEAD.path(14) == hops((13, "a13"), (14, "d14"))
    assert HEAD.path(12) == hops((10, "a10"), (11, "d11"), (12, "d12"))
    assert HEAD.path(14, have=12) == hops((13, "d13"), (14, "d14"))
    assert HEAD.path(14, have=13) == hops((14, "d14"))
    assert HEAD.path(14, have=3) == HEAD.path(14)


def test_the_path_to_the_held_version_is_empty() -> None:
    assert HEAD.path(14, have=14) == ()
    assert HEAD.path(10, have=10) == ()


def test_a_reader_far_behind_takes_an_anchor_if_it_is_smaller_than_the_deltas() -> None:
    dear = Head(1, (anchor(3, 50), delta(2, 40), anchor(1, 50)))
    assert dear.path(3, have=1) == (Hop(3, dear.published[0].forms[0]),)


def test_the_path_avoids_damaged_hops() -> None:
    d14, d13, a13 = hops((14, "d14"), (13, "d13"), (13, "a13"))
    assert HEAD.path(14, have=12, avoid={d13}) == (a13, d14)
    assert HEAD.path(14, avoid={a13}) == hops(
        (10, "a10"), (11, "d11"), (12, "d12"), (13, "d13"), (14, "d14")
    )
    assert HEAD.path(14, have=12, avoid={d14}) is None
    assert HEAD.path(14, have=12, avoid={d13, a13}) is None


def test_a_version_whose_base_is_gone_has_no_path() -> None:
    cut = Head(1, (delta(14, 12), delta(13, 11)))
    assert cut.path(14) is None
    assert cut.path(14, have=12) == tuple(
        Hop(entry.version, entry.forms[0]) for entry in reversed(cut.published)
    )
    assert cut.path(12, have=3) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"7",
        b'{"epoch": 1}',
        b'{"epoch": 1, "published": [["x", []]]}',
        b'{"epoch": 1, "published": [[1, [[2]]]]}',
    ],
)
def test_other_bytes_are_not_a_head(data: bytes) -> None:
    with pytest.raises(WeightsError, match="not a HEAD object"):
        Head.from_bytes(data)
