"""Finds settings of [grpo] that contradict the chosen policy loss, or have no effect with it."""

from collections.abc import Mapping
from typing import Protocol

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "grpo": ("clip",),
    "clip_higher": ("clip", "clip_high"),
    "dr_grpo": ("clip", "loss_length"),
    "dapo": ("clip", "clip_high"),
    "gspo": ("clip", "clip_high"),
    "cispo": ("ratio_cap",),
}
"""Maps each value of `grpo.loss` to the keys of [grpo] that are parameters of this loss."""

_ONLY_CLIPS = ("clip_higher", "gspo")
"""The losses that equal "grpo" if every probability ratio is 1.

All other losses differ from "grpo" even then, because they average over tokens in another way.
"""


class LossSettings(Protocol):
    """The settings of [grpo] that `loss_fault` reads. It also reads the keys in `PARAMETERS`."""

    @property
    def loss(self) -> str: ...
    @property
    def advantage_scale(self) -> str: ...
    @property
    def proximal(self) -> str: ...
    @property
    def importance(self) -> str: ...
    @property
    def minibatches(self) -> int: ...


def loss_fault(settings: LossSettings) -> str | None:
    """Return what is wrong with the policy loss of `settings`, or None if nothing is."""
    return _unused_parameter(settings) or _contradiction(settings)


def _unused_parameter(settings: LossSettings) -> str | None:
    loss = settings.loss
    for name in dict.fromkeys(name for names in PARAMETERS.values() for name in names):
        value = getattr(settings, name)
        if value is not None and name not in PARAMETERS[loss]:
            takers = ", ".join(other for other, names in PARAMETERS.items() if name in names)
            return (
                f"grpo.{name} = {value} has no effect with grpo.loss = {loss!r}, which takes "
                f"{_keys(loss)}: set grpo.{name} to 'none', or take a loss that has it: {takers}"
            )
    return None


def _contradiction(settings: LossSettings) -> str | None:
    loss = settings.loss
    if loss == "dr_grpo" and settings.advantage_scale != "none":
        return (
            f"grpo.loss = 'dr_grpo' does not divide advantages, and grpo.advantage_scale = "
            f"{settings.advantage_scale!r} does: set grpo.advantage_scale = 'none'"
        )
    if loss in _ONLY_CLIPS and settings.proximal == "step" and settings.minibatches == 1:
        return (
            f"grpo.loss = {loss!r} equals 'grpo' with grpo.minibatches = 1, because no ratio "
            "differs from 1: raise grpo.minibatches, or set grpo.proximal = 'behaviour'"
        )
    if settings.proximal == "behaviour" and settings.importance != "token_truncate":
        return (
            f"grpo.importance = {settings.importance!r} has no effect with grpo.proximal = "
            "'behaviour', because all weights are 1: remove one of the two"
        )
    return None


def _keys(loss: str) -> str:
    return " and ".join(f"grpo.{name}" for name in PARAMETERS[loss])
