"""Draws how often the policy requests each region, after SFT and after GRPO."""

from collections.abc import Mapping
from html import escape
from typing import Any

from awares.crops import CropId, crop_box
from awares.environment import OTHER

ICON = 22
NAMES: dict[str, str] = {
    CropId.TOP_LEFT: "top left",
    CropId.TOP_RIGHT: "top right",
    CropId.BOTTOM_LEFT: "bottom left",
    CropId.BOTTOM_RIGHT: "bottom right",
    CropId.CENTER: "center",
    CropId.TOP: "top half",
    CropId.BOTTOM: "bottom half",
    CropId.LEFT: "left half",
    CropId.RIGHT: "right half",
    CropId.ALL: "whole image",
}
"""The displayed names of the ten crops. Regions of other environments keep their own names."""

DIRECT, UNANSWERED = "direct", ""
"""The keys that count episodes without a request: direct answers, and episodes without an answer.

No region has the empty name, so "" is free.
"""

LEGEND = {"sft": "after SFT", "awares": "after GRPO", "low": "what the labels call for"}


def shift(policies: Mapping[str, Mapping[str, Any]], labels: Mapping[str, Any]) -> str:
    """Draw bars that compare the requests of the policy after SFT and of the policy after GRPO.

    A bar shows the share of a policy's episodes with a certain request. Further bars show what the
    labels call for.

    The result is "" if a policy is missing.
    """
    if not all(name in policies for name in ("sft", "awares")):
        return ""
    bars = {name: _shares(policies[name]) for name in ("sft", "awares")}
    if labelled := _labelled(labels):
        bars["low"] = labelled
    widest = max(share for shares in bars.values() for share in shares.values())
    silent = any(UNANSWERED in shares for shares in bars.values())
    rows = [
        _row(DIRECT, "answers directly", bars, widest),
        *([_row(UNANSWERED, "gives no valid answer", bars, widest)] if silent else []),
        *(_row(region, escape(region_name(region)), bars, widest) for region in _regions(bars)),
    ]
    legend = "".join(f'<span class="policy-{name}"><i></i>{LEGEND[name]}</span>' for name in bars)
    about = 'role="table" aria-label="Share of episodes by request"'
    return f'<p class="legend">{legend}</p><div class="shift" {about}>{"".join(rows)}</div>'


def _shares(policy: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of a policy's episodes for each region, for DIRECT and for UNANSWERED.

    Results that an older version of this package wrote count unanswered episodes as DIRECT.
    """
    counts = dict(policy["crops"])
    if unanswered := policy.get("unanswered", 0):
        counts[UNANSWERED] = unanswered
    return {key: count / policy["n"] for key, count in counts.items()}


def region_name(region: str) -> str:
    """Return the displayed name of a region."""
    return "another region" if region == OTHER else NAMES.get(region, region)


def _regions(bars: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the regions that get a row, in the order of the rows.

    If the results count any of the ten crops, all ten come first. The other counted regions follow.
    """
    found = dict.fromkeys(key for shares in bars.values() for key in shares)
    counted = [key for key in found if key not in (DIRECT, UNANSWERED)]
    crops = [crop.value for crop in CropId] if any(key in NAMES for key in counted) else []
    return crops + [region for region in counted if region not in NAMES]


def _labelled(labels: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of episodes with each request, for a policy that follows the labels exactly.

    The key DIRECT stands for no request. The result is empty if there are no labels.
    """
    counts = {label: labels.get("counts", {}).get(label, 0) for label in ("LR", "HR")}
    total = sum(counts.values())
    if not total:
        return {}
    crops = {crop: count / total for crop, count in labels["crops"].items()}
    return {DIRECT: counts["LR"] / total} | crops


def _row(key: str, name: str, bars: Mapping[str, Mapping[str, float]], widest: float) -> str:
    drawn = "".join(_bar(policy, shares.get(key, 0.0), widest) for policy, shares in bars.items())
    return (
        '<div class="shift-row" role="row">'
        f'<span class="what" role="rowheader">{_icon(key)}{name}</span>'
        f'<span class="bars" role="cell">{drawn}</span></div>'
    )


def _bar(policy: str, share: float, widest: float) -> str:
    # The widest bar leaves 18 % of the row for the number beside it.
    width = 82 * share / widest
    figure = f'<i style="width:{width:.2f}%"></i><b>{share:.1%}</b>'
    return f'<span class="bar policy-{policy}">{figure}</span>'


def _icon(key: str) -> str:
    frame = f'<rect class="frame" x="1" y="1" width="{ICON}" height="{ICON}" rx="2"/>'
    if key in NAMES:
        left, top, right, bottom = crop_box(CropId(key), (ICON, ICON))
        at = f'x="{left + 1}" y="{top + 1}" width="{right - left}" height="{bottom - top}"'
        frame += f'<rect class="region" {at} rx="1"/>'
    size = ICON + 2
    return f'<svg class="icon" viewBox="0 0 {size} {size}" aria-hidden="true">{frame}</svg>'
