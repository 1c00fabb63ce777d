"""Computes the learner's metrics of one step from the statistics of all passes and ranks.

policy/loss is the mean of the minibatches' losses. Every other metric is a mean over the sampled
tokens.
"""

import torch
import torch.distributed

from awares.losses import GrpoStats

_NAMES = {
    "kl": "policy/kl",
    "ratio": "policy/ratio",
    "clip_fraction": "policy/clip_fraction",
    "surprise": "policy/surprise",
    "truncated_share": "importance/truncated",
    "behaviour_gap": "importance/gap",
}


class LossMetrics:
    """Sums the statistics over the passes of one rank, and finally over all ranks.

    `fault` describes the last logprob that was not finite, or is "" if all were finite.
    """

    def __init__(self) -> None:
        self.fault = ""
        self._sums = torch.zeros(len(_NAMES), dtype=torch.float64)
        self._tokens = 0
        self._loss = 0.0

    def add(self, stats: GrpoStats) -> None:
        """Add the statistics of one pass."""
        values = torch.tensor([getattr(stats, name) for name in _NAMES], dtype=torch.float64)
        self._sums += values * stats.tokens
        self._tokens += stats.tokens
        self._loss += stats.loss

    def reduced(self, minibatches: int) -> dict[str, float]:
        """Return the metrics of a step over all ranks. Every rank must call this method.

        `minibatches` is the number of the step's minibatches.
        """
        counts = torch.tensor([self._tokens, self._loss], dtype=torch.float64)
        totals = torch.cat([self._sums, counts]).float()
        if torch.distributed.get_backend() == "nccl":
            totals = totals.cuda()
        torch.distributed.all_reduce(totals)
        *sums, tokens, loss = totals.tolist()
        pairs = zip(_NAMES.values(), sums, strict=True)
        means = {key: value / max(tokens, 1.0) for key, value in pairs}
        return means | {"policy/loss": loss / max(minibatches, 1)}
