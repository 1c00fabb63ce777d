"""Computes how fast the learner trains: tokens and FLOPs per second, MFU, and padding."""

import torch
import torch.distributed

from awares.batch import Batch
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.method.flops import ModelSizes, Pass, passes, tower_passes
from awares_platform.training.speed import StepWork


def step_work(grpo: GrpoConfig, policy: PolicyConfig, sizes: ModelSizes) -> StepWork:
    """Return which forward and backward passes a GRPO step computes.

    The reference and the proximal policy may each need a forward pass. The trained policy and the
    reference share one pass of a frozen vision tower, except with ZeRO stage 3.
    """
    proximal = int(grpo.scores_proximal)
    work = passes(policy, extra=(grpo.kl_beta > 0) + proximal)
    shared = not policy.train_vision and grpo.zero_stage < 3
    tower = Pass(1 + proximal, 0, 0) if shared else tower_passes(policy, work)
    return StepWork(sizes, work, tower, packed=policy.packed)


class LearnerSpeed:
    """Counts the tokens and FLOPs of one rank in a step, then sums the counts over all ranks.

    `peak` is the number of FLOPs per second that the device of a rank can reach.
    """

    def __init__(self, work: StepWork, peak: float) -> None:
        self._work, self._peak = work, peak
        self.reset()

    def reset(self) -> None:
        """Set the sums to zero."""
        self._real = self._computed = 0
        self._flops = 0.0

    def count(self, batch: Batch, *, filler: bool) -> None:
        """Add the tokens and FLOPs of a batch.

        A filler is a pass whose loss is multiplied by 0. Its tokens count as padding, and its FLOPs
        do not count.
        """
        real, computed = self._work.tokens(batch)
        self._computed += computed
        if not filler:
            self._real += real
            self._flops += self._work.flops(batch)

    def reduced(self, seconds: float) -> dict[str, float]:
        """Return the metrics of all ranks in a step that took `seconds`. Every rank must call this.

        learner/tokens_per_s is a sum over ranks. learner/padding is the share of computed tokens
        that are padding or fillers.
        """
        totals = torch.tensor([self._real, self._computed, self._flops], dtype=torch.float32)
        ranks = torch.distributed.get_world_size()
        if torch.distributed.get_backend() == "nccl":
            totals = totals.cuda()
        torch.distributed.all_reduce(totals)
        real, computed, flops = totals.tolist()
        if not computed:
            return {}
        rate = flops / seconds / ranks
        return {
            "learner/tokens_per_s": real / seconds,
            "learner/tflops": rate / 1e12,
            "learner/mfu": rate / self._peak,
            "learner/padding": 1 - real / computed,
        }
