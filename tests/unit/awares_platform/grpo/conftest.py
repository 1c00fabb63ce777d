"""Defines fixtures that construct episodes, groups, and a controller with fake actors."""

from collections.abc import Callable

import pytest

from awares.episode import Episode, StopReason, Turn
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.grpo.group import Group, Member, Outcome, Prompt
from tests.unit.awares_platform.grpo.stage import Stage


@pytest.fixture
def samples() -> list[Sample]:
    return [
        Sample(f"s{number}", "ab" * 32, f"question {number}?", str(number), label=Label.LR)
        for number in range(5)
    ]


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    def make(
        version: int = 0,
        answer: str | None = "7",
        stop: StopReason = StopReason.ANSWER,
        extra: int = 0,
    ) -> Episode:
        turn = Turn(
            context_ids=(1, 9, *[4] * extra, 2),
            views=(View(None),),
            sampled_ids=(5, 6),
            logprobs=(-0.1, -0.25),
            versions=(version, version + 1),
            text=answer or "",
            crops=(),
            stop=stop,
        )
        return Episode(
            sample_id="s0",
            image="ab" * 32,
            image_size=(112, 112),
            turns=(turn,),
            answer=answer,
            stop=stop,
            visual_tokens=4,
            rtr_token=0.25,
            rtr_pixel=0.25,
        )

    return make


@pytest.fixture
def call_episode() -> Episode:
    """Return an episode that asks for two crops in turn 1, and answers in turn 2."""
    asks = Turn(
        context_ids=(1, 9, 2),
        views=(View(None),),
        sampled_ids=(5,),
        logprobs=(-0.5,),
        versions=(3,),
        text="GET_CROPS: ['0', '5']",
        crops=("0", "5"),
        stop=None,
        area=0.75,
    )
    answers = Turn(
        context_ids=(3, 9, 9),
        views=(View((0, 0, 56, 56)), View((0, 0, 112, 56))),
        sampled_ids=(6, 7),
        logprobs=(-0.1, -1e-9),
        versions=(3, 4),
        text="7",
        crops=(),
        stop=StopReason.ANSWER,
    )
    return Episode(
        sample_id="s0",
        image="ab" * 32,
        image_size=(112, 112),
        turns=(asks, answers),
        answer="7",
        stop=StopReason.ANSWER,
        visual_tokens=4 + 4 + 8,
        rtr_token=1.0,
        rtr_pixel=1.0,
    )


@pytest.fixture
def make_group(make_episode: Callable[..., Episode]) -> Callable[..., Group]:
    """Return a factory for groups of two episodes.

    The factory's argument `version` is the weight version of the group's oldest token.
    """

    def make(prompt: Prompt, version: int = 0, outcome: Outcome = Outcome.READY) -> Group:
        first, second = (make_episode(version + late) for late in (0, 1))
        members = (
            Member(first, RewardValue(9.75, {"answer": 10.0, "cost": 0.25}), True, 0.5),
            Member(second, RewardValue(7.5, {"answer": 7.5, "cost": 0.0}), False, -0.5),
        )
        return Group(prompt, members, outcome, seconds=1.5)

    return make


@pytest.fixture
def stage(
    monkeypatch: pytest.MonkeyPatch, samples: list[Sample], make_episode: Callable[..., Episode]
) -> Callable[..., Stage]:
    """Return a factory that builds a Stage (see stage.py) from settings of the [grpo] section.

    The controller of the Stage replaces a dead actor without a pause.
    """
    monkeypatch.setattr("awares_platform.grpo.fleet._RESTART_PAUSE_S", 0.0)
    return lambda **settings: Stage(samples, make_episode, **settings)
