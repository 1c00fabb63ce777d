"""Dr. GRPO, GRPO without bias towards length (arXiv 2503.20783, section 3.2)."""

from dataclasses import dataclass

from torch import Tensor

from awares.losses.clipping import clipped_gain
from awares.losses.means import fixed_mean
from awares.losses.policy_loss import BatchTotals, Gain, SampledTokens


@dataclass(frozen=True, slots=True)
class DrGrpo:
    """Divides the sum of an episode's objectives by a constant, so that all tokens weigh the same.

    As in the paper, combine this loss with the scale "none" of `awares.advantages`.

    Example:
        DrGrpo(loss_length=512, clip=0.2)
    """

    loss_length: int
    """The constant, in tokens. TRL divides by `max_completion_length`."""
    clip: float = 0.2
    """The default of TRL's `epsilon`."""

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return the clipped objective of each token."""
        return clipped_gain(
            tokens.log_ratios_BT, tokens.advantages_B1, below=self.clip, above=self.clip
        )

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Sum over each episode's tokens, divide by `loss_length`, and average over episodes."""
        return fixed_mean(values_BT, mask_BT, totals, self.loss_length)
