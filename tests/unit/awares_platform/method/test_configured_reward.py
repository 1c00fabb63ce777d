"""Tests that the configured reward is built with its settings."""

import sys
from types import ModuleType

import pytest

from awares.episode import Episode, StopReason
from awares.errors import ConfigError
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares_platform.config.method import MethodConfig
from awares_platform.method.reward import build_reward, check_reward

SAMPLE = Sample("s", "ab" * 32, "digit?", "seven", label=Label.HR)
EPISODE = Episode(
    sample_id="s",
    image="ab" * 32,
    image_size=(112, 112),
    turns=(),
    answer="sevan",
    stop=StopReason.ANSWER,
    visual_tokens=4,
    rtr_token=0.25,
    rtr_pixel=0.25,
)


class Fixed:
    """A reward that returns the given totals and ignores the episodes."""

    def __init__(self, totals: list[float]) -> None:
        self._totals = totals

    def __call__(self, episodes: object, samples: object) -> list[RewardValue]:
        return [RewardValue(total, {}) for total in self._totals]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("users_rewards")
    module.__dict__.update(Fixed=Fixed)
    monkeypatch.setitem(sys.modules, "users_rewards", module)


def method(**settings: object) -> MethodConfig:
    return MethodConfig.model_validate(settings)


def fixed(*totals: float) -> MethodConfig:
    return method(reward="users_rewards:Fixed", reward_settings={"totals": list(totals)})


def test_the_papers_reward_takes_its_weights_and_its_answer_reward() -> None:
    settings = method(answer_weight=5.0, alpha_miss=1.0, reward_settings={"answer": "anls"})
    (value,) = build_reward(settings)([EPISODE], [SAMPLE])
    assert value.parts == pytest.approx({"answer": 4.0, "cost": 1.0})


def test_a_reward_of_ones_own_takes_the_place_of_the_papers() -> None:
    assert build_reward(fixed(2.5))([EPISODE], [SAMPLE]) == [RewardValue(2.5, {})]


@pytest.mark.parametrize(
    ("totals", "message"),
    [((1.0, 2.0), "returned 2 values for 1 episodes"), ((float("nan"),), "returned nan for")],
)
def test_values_that_would_spoil_training_are_refused(
    totals: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_reward(fixed(*totals))([EPISODE], [SAMPLE])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "no_such_module:Anls"}, "method.reward = .*no_such_module cannot be imported"),
        ({"reward_settings": {"answr": "anls"}}, "method.reward_settings.answr: .* takes answer"),
        ({"reward": "users_rewards:Fixed"}, "missing a required argument: 'totals'"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_reward(method(**settings))
