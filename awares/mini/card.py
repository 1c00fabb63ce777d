"""The model card of the tiny policy, written from the figures of its pre-training run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awares.mini.measure import GROUPS, VIEWS
from awares.mini.scenes import ILLEGIBLE

TEXT = """# AwaRes-Mini policy

A Qwen2.5-VL of {parameters:,} parameters (4 text layers and 4 vision blocks, 128 wide, embeddings untied, own tokenizer of {vocabulary}
tokens), pre-trained from scratch to answer questions about AwaRes-Mini's scenes. It can write a crop request when a command names the
places; when to ask, and where, fine-tuning teaches.

    {command}

Seed {seed}, {minutes:.0f} minutes on one core of a two-core machine, bfloat16 weights. Digits in training come from four fifths of
scikit-learn's handwritten digits (UCI ML, CC BY 4.0); the figures are greedy exact match on {count:,} held-out questions per view,
whose digits come from the other fifth.

| view | {heads} |
|---|{rule}|
{rows}

"closer" is the low view followed by the crops that show the evidence. LR: answerable in the low view (no digit to read, or large ones);
HR: a digit must be read that is at most {illegible} px tall; uncertain: one in between. Questions about one digit, by its height in the
full image:

| view | {heights} |
|---|{height_rule}|
{height_rows}
"""


def write_card(directory: Path, figures: Mapping[str, Any]) -> None:
    """Writes `figures` as pretraining.json and the card as README.md."""
    (directory / "pretraining.json").write_text(json.dumps(figures, indent=2) + "\n")
    accuracy = figures["accuracy"]
    heights = [group for group in accuracy["low"] if group.endswith(" px")]
    text = TEXT.format(
        **{
            name: figures[name] for name in ("parameters", "vocabulary", "command", "seed", "count")
        },
        illegible=ILLEGIBLE,
        minutes=figures["seconds"] / 60,
        heads=" | ".join(GROUPS),
        rule="|".join("---" for _ in GROUPS),
        rows=_rows(accuracy, VIEWS, GROUPS, 3),
        heights=" | ".join(heights),
        height_rule="|".join("---" for _ in heights),
        height_rows=_rows(accuracy, VIEWS[:2], heights, 2),
    )
    (directory / "README.md").write_text(text)


def _rows(
    accuracy: Mapping[str, Mapping[str, float]],
    views: Sequence[str],
    groups: Sequence[str],
    digits: int,
) -> str:
    return "\n".join(
        f"| {view} | "
        + " | ".join(f"{accuracy[view][group]:.{digits}f}" for group in groups)
        + " |"
        for view in views
    )
