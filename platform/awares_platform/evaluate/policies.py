"""Defines the policies that evaluation compares: their weights and how they play."""

from dataclasses import dataclass
from typing import Literal

from awares.environment import Environment
from awares.episode_spec import EpisodeSpec
from awares.family import ModelFamily
from awares.one_turn import OneTurn
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import environment, episode_budget, episode_spec, greedy

Weights = Literal["base", "sft", "awares"]
Play = Literal["asks", "decides", "low", "full"]
"""How a policy plays an episode.

    asks     all turns that method.environment allows
    decides  the first turn in method.environment, and no further turn
    low      one turn on the first view
    full     one turn on the whole image
"""


@dataclass(frozen=True, slots=True)
class EvaluatedPolicy:
    """A policy under evaluation: its weights, and how it plays.

    Example:
        EvaluatedPolicy("awares", "decides")
    """

    weights: Weights
    play: Play

    @property
    def may_call(self) -> bool:
        """Whether the policy's way of playing allows it to request crops.

        In POLICIES, the base weights only answer, because they are not trained to request crops.
        """
        return self.play in ("asks", "decides")

    def spec(
        self, method: MethodConfig, family: ModelFamily, max_tokens: int, context: int
    ) -> EpisodeSpec:
        """Return settings for greedy episodes with at most `max_tokens` tokens per turn.

        `context` is the longest sequence of the engine, in tokens.
        """
        played, budget = self._environment(environment(method)), episode_budget(method, context)
        return episode_spec(method, family, greedy(max_tokens), played, budget)

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
"""All policies that evaluate.policies may name.

The policies `threshold` and `escalate` combine episodes of other policies (see cascade.py).
"""
