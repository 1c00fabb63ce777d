"""HEAD: JSON and back, and which way to a version is the cheapest."""

import pytest

from awares_platform.weights.head import Form, Head, Hop, Published
from awares_platform.weights.manifest import WeightsError


def delta(version: int, size: int, base: int | None = None) -> Published:
    return Published(
        version,
        (Form("manifest.json", version - 1 if base is None else base, size, f"d{version}"),),
    )


def anchor(version: int, size: int) -> Published:
    return Published(version, (Form("manifest.json", None, size, f"a{version}"),))


def both(version: int, size: int, whole: int) -> Published:
    return Published(
        version, (*delta(version, size).forms, Form("anchor.json", None, whole, f"a{version}"))
    )


HEAD = Head(2, (delta(14, 12), both(13, 11, 100), delta(12, 10), delta(11, 9), anchor(10, 90)))


def way(*hops: tuple[int, str]) -> tuple[Hop, ...]:
    found = (HEAD.find(version) for version, _ in hops)
    return tuple(
        Hop(entry.version, next(form for form in entry.forms if form.digest == digest))
        for entry, (_, digest) in zip(found, hops, strict=True)
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


def test_the_way_of_the_fewest_bytes_is_taken() -> None:
    assert HEAD.path(14) == way((13, "a13"), (14, "d14"))  # 112 bytes, not 132 from version 10
    assert HEAD.path(12) == way((10, "a10"), (11, "d11"), (12, "d12"))
    assert HEAD.path(14, have=12) == way((13, "d13"), (14, "d14"))
    assert HEAD.path(14, have=13) == way((14, "d14"))
    assert HEAD.path(14, have=3) == HEAD.path(14)


def test_a_reader_that_has_it_needs_nothing() -> None:
    assert HEAD.path(14, have=14) == ()
    assert HEAD.path(10, have=10) == ()


def test_a_far_reader_takes_an_anchor_where_deltas_would_be_dearer() -> None:
    dear = Head(1, (anchor(3, 50), delta(2, 40), anchor(1, 50)))
    assert dear.path(3, have=1) == (Hop(3, dear.published[0].forms[0]),)


def test_damage_is_walked_around() -> None:
    d14, d13, a13 = way((14, "d14"), (13, "d13"), (13, "a13"))
    assert HEAD.path(14, have=12, avoid={d13}) == (a13, d14)
    assert HEAD.path(14, avoid={a13}) == way(
        (10, "a10"), (11, "d11"), (12, "d12"), (13, "d13"), (14, "d14")
    )
    assert HEAD.path(14, have=12, avoid={d14}) is None
    assert HEAD.path(14, have=12, avoid={d13, a13}) is None


def test_a_version_that_nothing_leads_to_has_no_way() -> None:
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
def test_what_is_no_head_is_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="no HEAD"):
        Head.from_bytes(data)
