"""The change of policy: how often each crop is requested after SFT and after GRPO."""

from collections.abc import Mapping
from typing import Any

from awares.crops import CropId, crop_box

ICON = 22
NAMES = {
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

LEGEND = {"sft": "after SFT", "awares": "after GRPO", "low": "what the labels call for"}


def shift(policies: Mapping[str, Mapping[str, Any]], labels: Mapping[str, Any]) -> str:
    """Draw the share of episodes of each request: first no request, then every crop.

    `policies` and `labels` are those of results.json. A third bar shows the share that the
    labels call for. The result is empty if SFT or GRPO was not evaluated.
    """
    if not all(name in policies for name in ("sft", "awares")):
        return ""
    bars = {
        name: {key: count / policies[name]["n"] for key, count in policies[name]["crops"].items()}
        for name in ("sft", "awares")
    }
    if labelled := _labelled(labels):
        bars["low"] = labelled
    widest = max(share for shares in bars.values() for share in shares.values())
    rows = [
        _row("direct", "answers directly", bars, widest),
        *(_row(crop.value, NAMES[crop], bars, widest) for crop in CropId),
    ]
    legend = "".join(f'<span class="policy-{name}"><i></i>{LEGEND[name]}</span>' for name in bars)
    about = 'role="table" aria-label="Share of episodes by request"'
    return f'<p class="legend">{legend}</p><div class="shift" {about}>{"".join(rows)}</div>'


def _labelled(labels: Mapping[str, Any]) -> dict[str, float]:
    """Return the shares of a policy that requests exactly what the labels call for.

    The result is empty without labels.
    """
    counts = {label: labels.get("counts", {}).get(label, 0) for label in ("LR", "HR")}
    total = sum(counts.values())
    if not total:
        return {}
    crops = {crop: count / total for crop, count in labels["crops"].items()}
    return {"direct": counts["LR"] / total} | crops


def _row(key: str, name: str, bars: Mapping[str, Mapping[str, float]], widest: float) -> str:
    drawn = "".join(_bar(policy, shares.get(key, 0.0), widest) for policy, shares in bars.items())
    return (
        '<div class="shift-row" role="row">'
        f'<span class="what" role="rowheader">{_icon(key)}{name}</span>'
        f'<span class="bars" role="cell">{drawn}</span></div>'
    )


def _bar(policy: str, share: float, widest: float) -> str:
    # The widest bar leaves 18 % of the row for its figure.
    width = 82 * share / widest
    figure = f'<i style="width:{width:.2f}%"></i><b>{share:.1%}</b>'
    return f'<span class="bar policy-{policy}">{figure}</span>'


def _icon(key: str) -> str:
    frame = f'<rect class="frame" x="1" y="1" width="{ICON}" height="{ICON}" rx="2"/>'
    if key != "direct":
        left, top, right, bottom = crop_box(CropId(key), (ICON, ICON))
        at = f'x="{left + 1}" y="{top + 1}" width="{right - left}" height="{bottom - top}"'
        frame += f'<rect class="region" {at} rx="1"/>'
    size = ICON + 2
    return f'<svg class="icon" viewBox="0 0 {size} {size}" aria-hidden="true">{frame}</svg>'
