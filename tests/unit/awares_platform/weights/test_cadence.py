"""Tests when the next weight version needs an anchor, and when deltas are useless.

An anchor holds all weights. A delta holds the difference from the previous version.
"""

from awares_platform.weights.cadence import ChainCost
from awares_platform.weights.head import Form, PublishedVersion


def costs(anchor: int, *deltas: int) -> ChainCost:
    found = ChainCost()
    found.add(PublishedVersion(1, (Form("manifest.json", None, anchor, "a"),)))
    for version, size in enumerate(deltas, start=2):
        found.add(PublishedVersion(version, (Form("manifest.json", version - 1, size, "d"),)))
    return found


def test_an_anchor_is_due_when_the_deltas_exceed_it() -> None:
    # The anchor has 100 bytes, and each delta has 30. With the next delta, the first chain has 90
    # bytes of deltas, and the second chain has 120.
    assert not costs(100, 30, 30).want_anchor(every=16)
    assert costs(100, 30, 30, 30).want_anchor(every=16)


def test_an_anchor_is_due_after_so_many_versions() -> None:
    assert not costs(100, 1, 1).want_anchor(every=4)
    assert costs(100, 1, 1, 1).want_anchor(every=4)
    assert costs(100).want_anchor(every=1)


def test_an_anchor_starts_a_new_chain() -> None:
    found = costs(100, 30, 30, 30)
    delta, anchor = Form("manifest.json", 4, 30, "d"), Form("anchor.json", None, 120, "a")
    found.add(PublishedVersion(5, (delta, anchor)))
    assert (found.anchor, found.deltas) == (120, [])
    assert not found.want_anchor(every=16)


def test_a_delta_nearly_as_large_as_an_anchor_is_useless() -> None:
    assert not costs(100, 70).delta_is_useless
    assert costs(100, 71).delta_is_useless
    assert not costs(100).delta_is_useless
