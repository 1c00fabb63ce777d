"""The policies that evaluation compares: their weights, and the environment that each plays in."""

from dataclasses import dataclass
from typing import Literal

from awares.environment import Environment
from awares.episode import EpisodeSpec
from awares.family import ModelFamily
from awares.one_turn import OneTurn
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import environment, episode_spec, greedy

Weights = Literal["base", "sft", "awares"]
Play = Literal["asks", "decides", "low", "full"]
"""`asks`: in method.environment. `decides`: the first turn of that. `low` and `full`: one turn of
the base policy, on the first view or on the whole image."""


@dataclass(frozen=True, slots=True)
class EvaluatedPolicy:
    """A policy under evaluation.

    Example:
        EvaluatedPolicy("awares", "decides")
    """

    weights: Weights
    play: Play

    @property
    def may_call(self) -> bool:
        """Whether the policy may ask for views; the base policy knows no requests."""
        return self.play in ("asks", "decides")

    def spec(self, method: MethodConfig, family: ModelFamily, max_tokens: int) -> EpisodeSpec:
        """How its episodes run, greedily, with at most `max_tokens` per turn."""
        played = self._environment(environment(method))
        return episode_spec(method, family, greedy(max_tokens), played)

    def _environment(self, asks: Environment) -> Environment:
        return asks if self.play == "asks" else OneTurn(asks, full=self.play == "full")


POLICIES: dict[str, EvaluatedPolicy] = {
    "full": EvaluatedPolicy("base", "full"),
    "low": EvaluatedPolicy("base", "low"),
    "threshold": EvaluatedPolicy("base", "low"),
    "escalate": EvaluatedPolicy("awares", "decides"),
    "sft": EvaluatedPolicy("sft", "asks"),
    "awares": EvaluatedPolicy("awares", "asks"),
}
"""The policies of evaluate.policies. Those in cascade.py join episodes of the others."""
