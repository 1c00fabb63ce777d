"""Tests the proposed division of GPUs, and that the shipped setups follow it."""

from collections.abc import Mapping

import pytest
import yaml

from awares_platform.config import PlatformConfig, load
from awares_platform.config.grpo import GrpoConfig
from awares_platform.plan import Assumptions, Sheet, make, render
from awares_platform.plan.division import TOLERANCE, Advice, Division, advise
from tests.unit.awares_platform.plan.paper import ROOT, setup

L40S = Assumptions(rollout_gpu_gib=45.0, rollout_peak_tflops=362.0, rollout_hbm_gbs=864.0)
"""The GPUs of the preset `two-pools`: H100 for trainers, and L40S for rollout engines."""
PRESETS = {"one-node": Assumptions(), "two-pools": L40S}
WITHOUT = {"mini": "it runs on CPUs", "trial": "it runs on CPUs", "serve-only": "it trains nothing"}
"""Setups and presets that do not divide GPUs, with the reason why they do not."""


def advised(learners: int, actors: int, parallel: int = 1, **settings: object) -> Advice:
    """Return the advice for a run that takes max(12 / learners, 5 / actors) hours.

    Five learners do not fit the memory of their GPUs.
    """
    grpo = GrpoConfig.model_validate(
        {"learner_workers": learners, "rollout_actors": actors, "groups_per_step": 2}
        | {"group_size": 3, **settings}
    )
    return advise(
        grpo,
        parallel,
        pools=False,
        fits=lambda one: one.learner_workers != 5,
        hours=lambda one: max(12 / one.learner_workers, 5 / one.rollout_actors),
    )


def preset(name: str) -> PlatformConfig:
    values = yaml.safe_load((ROOT / f"helm/awares-train/presets/{name}.yaml").read_text())
    return PlatformConfig.model_validate({**values["setup"], "store": {"url": "s3://awares/run"}})


def test_every_split_of_the_same_gpus_is_compared() -> None:
    advice = advised(4, 4)
    # Two divisions are missing: seven ranks are too many for six episodes, and five ranks do not
    # fit the memory of their GPUs.
    assert advice.divisions == (
        Division(6, 2, 2.5),
        Division(4, 4, 3.0),
        Division(3, 5, 4.0),
        Division(2, 6, 6.0),
        Division(1, 7, 12.0),
    )
    assert (advice.chosen, advice.best) == (Division(4, 4, 3.0), Division(6, 2, 2.5))
    assert advice.excess == pytest.approx(0.2) and not advice.followed
    assert advised(6, 2).followed


def test_an_engine_takes_all_its_gpus() -> None:
    divisions = advised(4, 1, parallel=2).divisions
    assert [(division.learners, division.actors) for division in divisions] == [(4, 1), (2, 2)]


def test_no_split_is_proposed_if_none_fits() -> None:
    grpo = setup().grpo
    none = advise(grpo, 1, pools=False, fits=lambda _: False, hours=lambda _: 1.0)
    assert (none.best, none.divisions, none.excess) == (None, (), 0.0)
    table = render(make(setup(), Assumptions(gpu_gib=22)))
    assert "No division into learner ranks and rollout actors fits these GPUs." in table


def test_gpus_of_other_kinds_stay_where_they_are() -> None:
    grpo = GrpoConfig(learner_workers=4, rollout_actors=4)
    advice = advise(
        grpo,
        1,
        pools=True,
        fits=lambda _: True,
        hours=lambda one: max(3.0, 6.05 / one.rollout_actors),
    )
    assert [(division.learners, division.actors) for division in advice.divisions] == [
        (4, 1),
        (4, 2),
        (4, 3),
        (4, 4),
    ]
    assert advice.best == Division(4, 2, 3.025)
    assert advice.excess < TOLERANCE and not advice.followed


def test_the_plan_says_how_much_another_split_saves() -> None:
    table = render(make(setup("grpo.learner_workers=4", "grpo.rollout_actors=4"), Assumptions()))
    assert "WARNING: this setup has 4 + 4, which takes 3.7 h; 6 + 2 takes 2.6 h (-30%);" in table
    assert "set grpo.learner_workers=6 grpo.rollout_actors=2" in table
    assert "This setup has 6 + 2, and no other division is better." in render(
        make(setup(), Assumptions())
    )


def names() -> Mapping[str, Sheet]:
    """Return the plans of all shipped setups and presets that run on GPUs."""
    setups = {path.stem: load(path) for path in sorted((ROOT / "jobs/configs").glob("*.toml"))}
    plans = {name: make(one, Assumptions()) for name, one in setups.items() if name not in WITHOUT}
    return plans | {name: make(preset(name), assumed) for name, assumed in PRESETS.items()}


@pytest.mark.parametrize(("name", "sheet"), names().items(), ids=[*names()])
def test_shipped_setups_follow_the_advice(name: str, sheet: Sheet) -> None:
    assert sheet.faults == []
    assert sheet.advice.best is not None and sheet.advice.excess <= 0.02
    assert sheet.advice.followed, f"{name}: {sheet.advice.best} is as fast"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fill_micro_batches_like_the_setup_of_the_paper(name: str) -> None:
    """Check that the presets have the paper setup's limits of rows and tokens per micro-batch."""
    found, paper = preset(name), load("awares-7b")
    for ours, theirs in ((found.sft, paper.sft), (found.grpo, paper.grpo)):
        assert theirs.micro_tokens is not None
        sizes = ours.micro_batch, ours.micro_tokens
        assert sizes == (theirs.micro_batch, theirs.micro_tokens)


def test_no_shipped_setup_is_left_out() -> None:
    presets = {path.stem for path in (ROOT / "helm/awares-train/presets").glob("*.yaml")}
    setups = {path.stem for path in (ROOT / "jobs/configs").glob("*.toml")}
    assert presets | setups == {*names(), *WITHOUT}
