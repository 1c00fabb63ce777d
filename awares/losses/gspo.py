"""GSPO, group sequence policy optimisation (arXiv 2507.18071, equations 5 and 7)."""

from dataclasses import dataclass

from torch import Tensor

from awares.losses.clipping import clipped_gain
from awares.losses.means import episode_mean
from awares.losses.policy_loss import BatchTotals, Gain, SampledTokens


@dataclass(frozen=True, slots=True)
class Gspo:
    """Clips one ratio per episode to [1 - `clip`, 1 + `clip_high`].

    The ratio is the geometric mean of the episode's token ratios. TRL computes this loss with
    `importance_sampling_level="sequence"`.

    Example:
        Gspo(clip=3e-4, clip_high=4e-4)
    """

    clip: float = 3e-4
    """The value of the paper's section 5.1. It is small, because episodes' ratios vary little."""
    clip_high: float = 4e-4
    """The value of the paper's section 5.1."""

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return, for each token, the clipped objective of the token's episode."""
        counts_B1 = tokens.mask_BT.sum(1, keepdim=True).clamp(min=1)
        means_B1 = tokens.log_ratios_BT.sum(1, keepdim=True) / counts_B1
        return clipped_gain(
            means_B1.expand_as(tokens.log_ratios_BT),
            tokens.advantages_B1,
            below=self.clip,
            above=self.clip_high,
        )

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Average over the tokens of each episode, and then over the episodes."""
        return episode_mean(values_BT, mask_BT, totals)
