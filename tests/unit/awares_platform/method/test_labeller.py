"""Tests which label and target crops follow from the answers at low and at full resolution."""

import asyncio
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from awares.crops import CropId
from awares.errors import DataError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.labels import Verdict
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.curate.label_shard import encode_shard, label_shard, require_labels
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.method.answers import Answers
from awares_platform.method.labeller import Labelled, Labeller
from awares_platform.method.play import EngineFailure

SAMPLE = Sample(
    "s", "a" * 64, "digit?", "7", evidence=((4, 4, 36, 36),), label=Label.HR, crops=(CropId.ALL,)
)


PAPER = {"both_wrong": "LR", "min_confidence": 0.0}


def label(
    low: str,
    full: str,
    sample: Sample = SAMPLE,
    fault: str = "",
    confidence: float = 0.5,
    **sections: dict[str, Any],
) -> Labelled:
    config = PlatformConfig.model_validate({"curate": PAPER, **sections})

    async def run() -> Labelled:
        image = Image.new("RGB", (112, 112))
        async with Labeller(config.method, config.curate, QWEN2_5_VL, lambda _: image) as labeller:
            return (await labeller([Answers(sample, low, full, confidence, fault)]))[0]

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("low", "full", "want", "crops", "verdict"),
    [
        ("7", "7", Label.LR, (), Verdict.TIE),
        ("1", "2", Label.LR, (), Verdict.TIE),
        ("7", "2", Label.LR, (), Verdict.LOW),
        ("1", "7", Label.HR, (CropId.TOP_LEFT,), Verdict.FULL),
    ],
)
def test_the_papers_table(
    low: str, full: str, want: Label, crops: tuple[CropId, ...], verdict: Verdict
) -> None:
    """Check the paper's table of labels.

    The new label and crops replace the label and crops that SAMPLE already has.
    """
    labelled = label(low, full)
    assert labelled.sample == replace(SAMPLE, label=want, crops=crops)
    assert labelled.verdict is verdict and labelled.fault == ""


def test_both_wrong_can_be_dropped() -> None:
    labelled = label("1", "2", curate={"both_wrong": "drop"})
    assert labelled.sample is None and labelled.fault == "" and labelled.verdict is Verdict.TIE
    assert label("7", "7", curate={"both_wrong": "drop"}).sample is not None


@pytest.mark.parametrize(
    ("confidence", "want"), [(0.89, Label.HR), (0.9, Label.LR), (1.0, Label.LR)]
)
def test_a_right_but_unsure_answer_is_labelled_hr(confidence: float, want: Label) -> None:
    """Check that two right answers give the label HR if the confidence is below 0.9, the default.

    If only the low-resolution answer is right, the label is LR at any confidence.
    """
    labelled = label("7", "7", confidence=confidence, curate={})
    assert (
        labelled.sample is not None
        and labelled.sample.label is want
        and labelled.verdict is Verdict.TIE
    )
    better = label("7", "2", confidence=confidence, curate={})
    assert better.sample is not None and better.sample.label is Label.LR
    assert label("1", "2", confidence=confidence, curate={}).sample is None


def test_two_boxes_take_the_smallest_cover() -> None:
    two = replace(SAMPLE, evidence=((4, 4, 36, 36), (76, 4, 108, 36)))
    labelled = label("1", "7", two)
    assert labelled.sample is not None and labelled.sample.crops == (CropId.TOP,)


def test_the_target_is_a_request_of_the_environment() -> None:
    whole = label("1", "7", method={"environment": "awares.whole_image:WholeImage"})
    assert whole.sample is not None and whole.sample.crops == ("all",)


def test_a_target_over_the_budget_becomes_the_whole_image_or_a_fault() -> None:
    """Check target crops that exceed `method.max_crops` or `method.max_visual_tokens`.

    SFT must never teach a request that exceeds one of these limits.
    """
    corners = replace(SAMPLE, evidence=((4, 4, 36, 36), (76, 76, 108, 108)))
    free = label("1", "7", corners)
    assert free.sample is not None and free.sample.crops == ("0", "3")
    one = label("1", "7", corners, method={"max_crops": 1})
    assert one.sample is not None and one.sample.crops == ("all",)
    tight = label("1", "7", corners, method={"max_crops": 1, "max_visual_tokens": 19})
    assert tight.sample is None and "exceed method.max_crops or method.max_visual" in tight.fault


def test_the_papers_literal_iou_leaves_small_evidence_without_a_crop() -> None:
    labelled = label("1", "7", method={"mapping": "iou"})
    assert labelled.sample is None and 'method.mapping = "iou" maps the evidence' in labelled.fault
    large = label("1", "7", replace(SAMPLE, evidence=((0, 0, 56, 56),)), method={"mapping": "iou"})
    assert large.sample is not None and large.sample.crops == (
        CropId.TOP_LEFT,
        CropId.TOP,
        CropId.LEFT,
    )


def test_an_unusable_answer_and_missing_evidence_are_faults() -> None:
    assert label("", "", fault="images/aa is damaged").fault == "images/aa is damaged"
    bare = label("1", "7", replace(SAMPLE, evidence=()))
    assert bare.sample is None and "has no evidence boxes" in bare.fault
    assert label("7", "7", replace(SAMPLE, evidence=())).sample is not None


def test_a_shard_keeps_answers_and_verdicts_of_what_is_usable() -> None:
    kept, dropped = label("1", "7"), label("1", "7", replace(SAMPLE, sample_id="bare", evidence=()))
    rows = decode_rows(encode_shard([kept, dropped], "ab12"), "k")
    assert rows.samples == (kept.sample,)
    assert rows.columns == (
        {"low_answer": "1", "full_answer": "7", "confidence": 0.5, "verdict": "FULL"},
    )
    counts = '{"left out": {"data": 1}, "dropped boxes": 0, "used": {}}'
    assert rows.metadata == {"fingerprint": "ab12", "lost": "0", "counts": counts}


def test_a_shard_that_is_lost_to_unreadable_replies_is_a_fault_that_shows_them() -> None:
    answers = Answers(SAMPLE, "1", "7", 1.0, "")
    lost = [
        Labelled(answers, None, None, f"the judge refuses: 'No {index}'", "refusal")
        for index in range(4)
    ]
    with pytest.raises(DataError, match=r"no sample of k has a label.*4 refusal.*'No 0'.*'No 2'"):
        require_labels(lost, "k")
    require_labels([*lost, label("7", "7")], "k")
    require_labels(lost[:3], "k")
    require_labels([Labelled(answers, None, None, "images/aa is damaged", "data")] * 9, "k")
    require_labels([Labelled(answers, None, Verdict.TIE, "")] * 9, "k")
    assert decode_rows(encode_shard(lost[:3], "ab12"), "k").metadata["lost"] == "3"


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="curate.judge_endpoint.url"):
        PlatformConfig.model_validate({"curate": {"judge": "endpoint", **PAPER}})
    endpoint = {"url": "http://judge/v1", "model": "m"}
    with pytest.raises(ValidationError, match="both_wrong"):
        PlatformConfig.model_validate(
            {"curate": {"judge": "endpoint", "judge_endpoint": endpoint, "both_wrong": "drop"}}
        )


def test_a_failure_travels_as_a_row_and_nothing_is_written() -> None:
    """Check that `label_shard` does not raise a failure, but returns it in the column "failure"."""
    rows = encode_rows(
        [SAMPLE], {"low_answer": ["1"], "full_answer": ["7"], "confidence": [0.5], "fault": [""]}
    )
    batch = {
        name: np.array([value], dtype=object)
        for name, value in {"key": "k", "fingerprint": "f", "rows": rows, "failure": b""}.items()
    }
    engine = label_shard(
        batch | {"failure": np.array([pickle.dumps(EngineFailure("died"))], dtype=object)},
        PlatformConfig(),
    )
    assert (
        isinstance(pickle.loads(engine["failure"][0]), EngineFailure)
        and engine["lr"][0] == engine["hr"][0] == 0
    )
    # This batch has no failure, but `label_shard` itself fails, because no local store is running.
    store = label_shard(batch, PlatformConfig())
    assert "names no server yet" in str(pickle.loads(store["failure"][0]))
