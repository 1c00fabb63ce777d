"""Builds the policy loss that grpo.loss names."""

from collections.abc import Callable, Mapping

from awares.losses import Cispo, ClipHigher, Dapo, DrGrpo, Grpo, Gspo, PolicyLoss
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.loss_choice import PARAMETERS

LOSSES: Mapping[str, Callable[..., PolicyLoss]] = {
    "grpo": Grpo,
    "clip_higher": ClipHigher,
    "dr_grpo": DrGrpo,
    "dapo": Dapo,
    "gspo": Gspo,
    "cispo": Cispo,
}
"""The class of each value of grpo.loss. PARAMETERS lists the parameters of each class."""


def policy_loss(settings: GrpoConfig) -> PolicyLoss:
    """Return the policy loss with the parameters of `settings`.

    A parameter that is not set keeps the default of the loss's class. The default of
    grpo.loss_length is grpo.max_tokens.
    """
    names = PARAMETERS[settings.loss]
    given = {name: getattr(settings, name) for name in names}
    if "loss_length" in names and settings.loss_length is None:
        given["loss_length"] = settings.max_tokens
    return LOSSES[settings.loss](
        **{name: value for name, value in given.items() if value is not None}
    )
