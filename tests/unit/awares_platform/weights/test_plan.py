"""When an anchor is written."""

from awares_platform.weights.head import Form, Published
from awares_platform.weights.plan import Costs


def costs(anchor: int, *deltas: int) -> Costs:
    found = Costs()
    found.add(Published(1, (Form("manifest.json", None, anchor, "a"),)))
    for version, size in enumerate(deltas, start=2):
        found.add(Published(version, (Form("manifest.json", version - 1, size, "d"),)))
    return found


def test_an_anchor_comes_when_joining_by_deltas_would_cost_more() -> None:
    assert not costs(100, 30, 30).want_anchor(every=16)  # a third one of 30 makes 90
    assert costs(100, 30, 30, 30).want_anchor(every=16)


def test_an_anchor_comes_every_so_many_versions() -> None:
    assert not costs(100, 1, 1).want_anchor(every=4)
    assert costs(100, 1, 1, 1).want_anchor(every=4)
    assert costs(100).want_anchor(every=1)


def test_a_new_anchor_begins_a_new_chain() -> None:
    found = costs(100, 30, 30, 30)
    found.add(
        Published(5, (Form("manifest.json", 4, 30, "d"), Form("anchor.json", None, 120, "a")))
    )
    assert (found.anchor, found.deltas) == (120, [])
    assert not found.want_anchor(every=16)


def test_a_delta_near_to_an_anchor_is_useless_beside_one() -> None:
    assert not costs(100, 70).delta_is_useless
    assert costs(100, 71).delta_is_useless
    assert not costs(100).delta_is_useless
