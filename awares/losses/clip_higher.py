"""GRPO with Clip-Higher (DAPO, arXiv 2503.14476, section 3.1)."""

from dataclasses import dataclass

from torch import Tensor

from awares.losses.clipping import clipped_gain
from awares.losses.means import episode_mean
from awares.losses.policy_loss import BatchTotals, Gain, SampledTokens


@dataclass(frozen=True, slots=True)
class ClipHigher:
    """Clips the ratio of each token to [1 - `clip`, 1 + `clip_high`]. All episodes weigh the same.

    The higher upper bound lets rare tokens gain more probability in one step.

    Example:
        ClipHigher(clip=0.2, clip_high=0.28)
    """

    clip: float = 0.2
    """DAPO's default. TRL names this field `epsilon`."""
    clip_high: float = 0.28
    """DAPO's default. TRL names this field `epsilon_high`, with the default 0.2."""

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return the clipped objective of each token."""
        return clipped_gain(
            tokens.log_ratios_BT, tokens.advantages_B1, below=self.clip, above=self.clip_high
        )

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Average over the tokens of each episode, and then over the episodes."""
        return episode_mean(values_BT, mask_BT, totals)
