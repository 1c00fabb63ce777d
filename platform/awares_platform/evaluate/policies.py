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

    asks     The policy may request crops, then answers.
    decides  Only the first turn of "asks": the policy either requests crops or answers.
    low      The policy answers in one turn, on the low-resolution view.
    full     The policy answers in one turn, on the image at full resolution.
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
        """True if the policy may request crops.

        A policy with the base weights may not, because these weights are not trained for it.
        """
        return self.play in ("asks", "decides")

    def spec(
        self, method: MethodConfig, family: ModelFamily, max_tokens: int, context: int
    ) -> EpisodeSpec:
        """Return settings for greedy sampling, with at most `max_tokens` tokens per turn.

        `context` is the longest sequence that the engine accepts, in tokens.
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

The results of `threshold` and `escalate` are built from episodes of other policies (cascade.py).
"""
