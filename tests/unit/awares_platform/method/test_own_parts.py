"""Tests that the configuration can name a judge and a grounding written by a user."""

import asyncio
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

import pytest
from PIL import Image
from pydantic import ValidationError

from awares.crops import Box, CropId
from awares.errors import ConfigError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.labels import Case, Judgement, Verdict
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.curate import CurateConfig
from awares_platform.method.answers import Answers
from awares_platform.method.grounding import check_grounding
from awares_platform.method.judge import check_judge
from awares_platform.method.labeller import Labelled, Labeller

SAMPLE = Sample("s", "a" * 64, "digit?", "7")
OPENED: list[str] = []


class LongerIsBetter:
    """A judge that prefers the full-resolution answer if it is over `margin` characters longer.

    The judge is an async context manager, which the labeller must open and close.
    """

    def __init__(self, margin: int) -> None:
        self._margin = margin

    async def __aenter__(self) -> Self:
        OPENED.append("open")
        return self

    async def __aexit__(self, *reason: object) -> None:
        OPENED.append("closed")

    async def __call__(self, case: Case) -> Judgement:
        is_longer = len(case.full_answer) > len(case.low_answer) + self._margin
        return Judgement(Verdict.FULL if is_longer else Verdict.LOW)


class RightEdge:
    """A grounding that always returns the last column of pixels as the evidence box."""

    def __init__(self, images: Callable[[str], Image.Image]) -> None:
        self._images = images

    async def boxes(self, sample: Sample) -> tuple[Box, ...]:
        width, height = self._images(sample.image).size
        return ((width - 1, 0, width, height),)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("users_labelling")
    module.__dict__.update(LongerIsBetter=LongerIsBetter, RightEdge=RightEdge)
    monkeypatch.setitem(sys.modules, "users_labelling", module)
    OPENED.clear()


def label(low: str, full: str) -> Labelled:
    curate = {
        "judge": "users_labelling:LongerIsBetter",
        "judge_settings": {"margin": 2},
        "grounding": "users_labelling:RightEdge",
    }
    config = PlatformConfig.model_validate({"curate": curate})

    async def run() -> Labelled:
        image = Image.new("RGB", (112, 112))
        async with Labeller(config.method, config.curate, QWEN2_5_VL, lambda _: image) as labeller:
            return (await labeller([Answers(SAMPLE, low, full, 1.0, "")]))[0]

    return asyncio.run(run())


def test_own_parts_label_a_sample_and_are_closed() -> None:
    labelled = label("a", "a dog")
    assert labelled.sample is not None
    assert (labelled.sample.label, labelled.sample.crops) == (Label.HR, (CropId.RIGHT,))
    assert OPENED == ["open", "closed"]
    within_margin = label("a", "a d")
    assert within_margin.sample is not None and within_margin.sample.label is Label.LR


@pytest.mark.parametrize("key", ["judge", "grounding"])
def test_a_name_that_is_no_part_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=f"curate.{key} = 'oracle': use .* module:attribute"):
        CurateConfig.model_validate({key: "oracle"})


@pytest.mark.parametrize(
    ("check", "settings", "message"),
    [
        (check_judge, {"judge": "no_such_module:Judge"}, "curate.judge = .* cannot be imported"),
        (check_judge, {"judge_settings": {"margin": 1}}, "curate.judge_settings.margin: "),
        (check_judge, {"judge": "users_labelling:LongerIsBetter"}, "'margin'; set it in curate"),
        (check_grounding, {"grounding": "users_labelling:No"}, "users_labelling has no 'No'"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(
    check: Callable[[CurateConfig], None], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(CurateConfig.model_validate(settings))
