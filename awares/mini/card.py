"""Writes the model card of the tiny policy from the figures of its pre-training run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awares.mini.measure import GROUPS, VIEWS
from awares.mini.scenes import ILLEGIBLE

TEXT = """# AwaRes-Mini policy

This policy is a Qwen2.5-VL of {parameters:,} parameters. It has 4 text layers and 4 vision blocks,
each 128 wide, untied embeddings, and its own tokenizer of {vocabulary} tokens. It is pre-trained
from scratch to answer questions about the scenes of AwaRes-Mini. It can write a crop request if a
command names the places. Fine-tuning teaches it when to request crops, and which ones.

    {command}

This run has seed {seed} and took {minutes:.0f} minutes on one core of a two-core machine. The
weights are bfloat16. The training digits are four fifths of scikit-learn's handwritten digits
(UCI ML, CC BY 4.0). The table shows greedy exact match on {count:,} held-out questions for each
view, with digits from the other fifth.

| view | {heads} |
|---|{rule}|
{rows}

In "closer", the crops of the evidence follow the low-resolution view. An LR question reads no
digit, or only large ones: the low-resolution view suffices. An HR question reads a digit of at most
{illegible} px. An uncertain question reads a digit between those sizes.

The next table shows questions about one digit, by its height in the full image:

| view | {heights} |
|---|{height_rule}|
{height_rows}
"""


def write_card(directory: Path, figures: Mapping[str, Any]) -> None:
    """Write `figures` to pretraining.json, and the model card to README.md."""
    (directory / "pretraining.json").write_text(json.dumps(figures, indent=2) + "\n")
    accuracy = figures["accuracy"]
    heights = [group for group in accuracy["low"] if group.endswith(" px")]
    names = ("parameters", "vocabulary", "command", "seed", "count")
    text = TEXT.format(
        **{name: figures[name] for name in names},
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
    lines = []
    for view in views:
        cells = [f"{accuracy[view][group]:.{digits}f}" for group in groups]
        lines.append(f"| {view} | {' | '.join(cells)} |")
    return "\n".join(lines)
