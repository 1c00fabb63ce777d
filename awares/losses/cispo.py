"""CISPO, clipped importance-sampling policy optimisation (arXiv 2506.13585, equations 4 and 5)."""

from dataclasses import dataclass

from torch import Tensor

from awares.losses.clipping import ratio
from awares.losses.means import token_mean
from awares.losses.policy_loss import BatchTotals, Gain, SampledTokens


@dataclass(frozen=True, slots=True)
class Cispo:
    """Weighs the logprob of each token by its probability ratio r, but at most by `ratio_cap`.

    The objective of a token with the advantage A is

        min(r, ratio_cap) * A * logprob

    and the mean is over all tokens of an optimizer step. The weight has no gradient.

    Example:
        Cispo(ratio_cap=5.0)
    """

    ratio_cap: float = 5.0
    """The paper's 1 + epsilon_high, and the epsilon_max of ScaleRL (arXiv 2510.13786).

    TRL's documentation recommends 5. TRL's default of `epsilon_high`, 0.2, would cut the weight of
    nearly every token to 0.2.
    """

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return the objective of each token."""
        ratios_BT = ratio(tokens.log_ratios_BT.detach())
        weights_BT = ratios_BT.clamp(max=self.ratio_cap)
        values_BT = weights_BT * tokens.advantages_B1 * tokens.logprobs_BT
        return Gain(values_BT, ratios_BT, ratios_BT > self.ratio_cap)

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Return the mean over all sampled tokens."""
        return token_mean(values_BT, mask_BT, totals)
