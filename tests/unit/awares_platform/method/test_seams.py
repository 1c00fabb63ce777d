"""Tests `build`, which builds objects such as a judge from a name like `module:attribute`."""

from typing import Any, Protocol

import pytest

from awares.errors import ConfigError
from awares_platform.method.seams import build


class Scale(Protocol):
    """The protocol that a built object must satisfy: a callable with a unit."""

    unit: str

    def __call__(self, value: float) -> float: ...


class Double:
    unit = "m"

    def __init__(self, *, alpha: float = 2.0, floor: float = 0.0) -> None:
        self.alpha, self.floor = alpha, floor

    def __call__(self, value: float) -> float:
        return max(self.floor, self.alpha * value)


class Unitless:
    def __call__(self, value: float) -> float:
        return value


def refuses() -> None:
    raise ValueError("no such thing")


PART = "no callable"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the module `users_parts`, in which the tests find the objects of this file."""
    import sys
    from types import ModuleType

    module = ModuleType("users_parts")
    module.__dict__.update(Double=Double, Unitless=Unitless, refuses=refuses, PART=PART)
    monkeypatch.setitem(sys.modules, "users_parts", module)


def made(reference: str, **settings: Any) -> Any:
    offered = {"alpha": 3.0, "beta": 1.0}
    return build(reference, Scale, "method.scale", offered, settings)


def test_a_part_gets_what_its_signature_names_and_its_own_settings() -> None:
    part = made("users_parts:Double", floor=7.0)
    assert (part(2.0), part(3.0)) == (7.0, 9.0)


def test_own_settings_win_over_what_is_offered() -> None:
    assert made("users_parts:Double", alpha=5.0)(1.0) == 5.0


@pytest.mark.parametrize(
    ("reference", "settings", "message"),
    [
        ("Double", {}, "method.scale = 'Double': write it as module:attribute"),
        ("no_such_module:x", {}, "no_such_module cannot be imported"),
        ("users_parts:Triple", {}, "users_parts has no 'Triple'"),
        ("users_parts:PART", {}, "is no class and no function"),
        ("users_parts:Double", {"flor": 1}, "method.scale_settings.flor: .* takes alpha, floor"),
        ("users_parts:Unitless", {}, "is no Scale: it lacks unit"),
        ("users_parts:refuses", {}, "cannot be built: no such thing"),
    ],
)
def test_a_mistake_is_one_clear_error(
    reference: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(reference, **settings)
