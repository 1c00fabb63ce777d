"""The policy's shift: how often each crop is asked for, after SFT and after GRPO."""

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


def shift(policies: dict[str, dict[str, Any]]) -> str:
    """Paired bars: a direct answer, then every crop, as shares of all episodes. Empty until both policies were evaluated."""
    if not all(name in policies and "crops" in policies[name] for name in ("sft", "awares")):
        return ""
    before, after = (_shares(policies[name]) for name in ("sft", "awares"))
    widest = max(*before.values(), *after.values(), 1e-9)
    rows = [_row("direct", "answers directly", before, after, widest)]
    rows += [_row(crop.value, NAMES[crop], before, after, widest) for crop in CropId]
    return f'<div class="shift" role="table" aria-label="Share of episodes by request, after SFT and after GRPO">{"".join(rows)}</div>'


def _shares(row: dict[str, Any]) -> dict[str, float]:
    """Share of episodes; one that asks for two crops counts for both."""
    return {key: row["crops"].get(key, 0) / row["n"] for key in ("direct", *(crop.value for crop in CropId))}


def _row(key: str, name: str, before: dict[str, float], after: dict[str, float], widest: float) -> str:
    return (
        f'<div class="shift-row" role="row"><span class="what" role="rowheader">{_icon(key)}{name}</span><span class="bars" role="cell">'
        f"{_bar('sft', before[key], widest)}{_bar('awares', after[key], widest)}</span></div>"
    )


def _bar(policy: str, share: float, widest: float) -> str:
    return f'<span class="bar policy-{policy}"><i style="width:{100 * share / widest * 0.82:.2f}%"></i><b>{share:.1%}</b></span>'


def _icon(key: str) -> str:
    frame = f'<rect class="frame" x="1" y="1" width="{ICON}" height="{ICON}" rx="2"/>'
    if key != "direct":
        left, top, right, bottom = crop_box(CropId(key), (ICON, ICON))
        frame += f'<rect class="region" x="{left + 1}" y="{top + 1}" width="{right - left}" height="{bottom - top}" rx="1"/>'
    return f'<svg class="icon" viewBox="0 0 {ICON + 2} {ICON + 2}" aria-hidden="true">{frame}</svg>'
