"""Tests that settings have the defaults of the library parameters to which they are passed."""

import inspect

import pytest

import awares
from awares.whole_image import WholeImage
from awares_platform.config.base import Section
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig


@pytest.mark.parametrize(
    ("built", "section", "shared"),
    [
        (awares.CropReward, MethodConfig, 6),
        (awares.TenCrops, MethodConfig, 5),
        (WholeImage, MethodConfig, 1),
        (awares.ViewRule, MethodConfig, 3),
        (awares.GrpoSettings, GrpoConfig, 3),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_setting_has_the_default_of_its_parameter(
    built: type, section: type[Section], shared: int
) -> None:
    """Check that parameters of `built` have the same defaults as the settings with the same names.

    `shared` is the number of these pairs.
    """
    offered = {name: field.default for name, field in section.model_fields.items()}
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(built).parameters.items()
        if name in offered
    }
    assert defaults == {name: offered[name] for name in defaults}
    assert len(defaults) == shared
