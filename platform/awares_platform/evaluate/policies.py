"""How each policy plays."""

from dataclasses import dataclass
from typing import Literal

from awares.episode import EpisodeSpec
from awares_platform.config import PlatformConfig
from awares_platform.method.environment import episode_spec, greedy

Weights = Literal["base", "sft", "awares"]


@dataclass(frozen=True, slots=True)
class PolicyProtocol:
    """How a policy plays: whose weights, which first view, what it gets in reply to a call.

    Example:
        PolicyProtocol("awares", "low", "all")  # VisionThink's escalation, decided by the awares policy
    """

    weights: Weights
    view: Literal["low", "full"] = "low"
    reply: Literal["crops", "all"] = "crops"

    @property
    def may_call(self) -> bool:
        """Whether the policy has a second turn: the base policy knows no calls and answers in one."""
        return self.weights != "base"

    def spec(self, config: PlatformConfig) -> EpisodeSpec:
        """The episodes that it plays."""
        turns = config.method.max_turns if self.may_call else 1
        return episode_spec(
            config.method,
            greedy(config.evaluate.max_tokens),
            view=self.view,
            reply=self.reply,
            turns=turns,
        )


PROTOCOLS: dict[str, PolicyProtocol] = {
    "full": PolicyProtocol("base", view="full"),
    "low": PolicyProtocol("base"),
    "escalate": PolicyProtocol("awares", reply="all"),
    "sft": PolicyProtocol("sft"),
    "awares": PolicyProtocol("awares"),
}
