"""Tests that the [policy] section selects the model family."""

import pytest

from awares.errors import ConfigError
from awares.families.qwen2_5_vl import Qwen25VL
from awares_platform.config.policy import PolicyConfig
from awares_platform.method.family import model_family


def test_the_default_is_the_family_of_the_shipped_policy() -> None:
    assert isinstance(model_family(PolicyConfig()), Qwen25VL)


def test_a_family_is_named_by_module_and_attribute() -> None:
    policy = PolicyConfig(family="awares.families.qwen3_vl:Qwen3VL")
    assert model_family(policy).limits(1024, 4096).unit == 32


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("awares.families.qwen9:Qwen9", r"policy\.family = .* cannot be imported"),
        ("pathlib:PurePath", r"is no ModelFamily: it lacks architecture, chat"),
    ],
)
def test_a_wrong_family_is_named(family: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model_family(PolicyConfig(family=family))
