"""The loss of DAPO: Clip-Higher and a mean over tokens (arXiv 2503.14476, equation 8)."""

from dataclasses import dataclass

from torch import Tensor

from awares.losses.clipping import clipped_gain
from awares.losses.means import token_mean
from awares.losses.policy_loss import BatchTotals, Gain, SampledTokens


@dataclass(frozen=True, slots=True)
class Dapo:
    """Clips like ClipHigher, and gives all sampled tokens of an optimizer step the same weight.

    The paper takes one mean per group. TRL and this class take one mean over the whole step.

    Example:
        Dapo(clip=0.2, clip_high=0.28)
    """

    clip: float = 0.2
    clip_high: float = 0.28
    """The paper's default. TRL's default is 0.2."""

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return the clipped objective of each token."""
        return clipped_gain(
            tokens.log_ratios_BT, tokens.advantages_B1, below=self.clip, above=self.clip_high
        )

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Return the mean over all sampled tokens."""
        return token_mean(values_BT, mask_BT, totals)
