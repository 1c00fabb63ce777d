"""GRPO, group relative policy optimisation (arXiv 2402.03300, equation 3)."""

from dataclasses import dataclass

from torch import Tensor

from awares.losses.clipping import clipped_gain
from awares.losses.means import episode_mean
from awares.losses.policy_loss import BatchTotals, Gain, SampledTokens


@dataclass(frozen=True, slots=True)
class Grpo:
    """Clips the ratio of each token to [1 - `clip`, 1 + `clip`]. All episodes weigh the same.

    This is the loss of the paper's section 3.4, and `loss_type="grpo"` in TRL 1.16.

    Example:
        Grpo(clip=0.2)
    """

    clip: float = 0.2
    """The default of TRL's `epsilon`. The paper names no value."""

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return the clipped objective of each token."""
        return clipped_gain(
            tokens.log_ratios_BT, tokens.advantages_B1, below=self.clip, above=self.clip
        )

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Average over the tokens of each episode, and then over the episodes."""
        return episode_mean(values_BT, mask_BT, totals)
