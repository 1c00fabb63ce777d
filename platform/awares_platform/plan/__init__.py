"""Computes the memory, traffic and GPU-hours of a run from its setup, before anyone rents a GPU.

    setup, geometry -- parameters, KV bytes of a token -+- trainer   memory of a trainer's GPU
    assumptions ------ lengths: tokens of an episode ---+- engine    memory of a rollout GPU
                                                        +- caches    host memory of caches
                                                        +- traffic   S3 bytes of a learner step
                                                        +- ranks     time of a training step
                                                             hours     hours and GPU-hours
                                                             division  learners + rollout actors
                                                             sheet     all figures, as JSON
                                                             table     the sheet for a reader

`awares plan` prints the plan. The computation downloads nothing and needs no GPU. All figures are
estimates. The docstrings name the sources of the formulas. The printed table ends with the
assumptions.
"""

from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.sheet import Sheet, make
from awares_platform.plan.table import render

__all__ = ["Assumptions", "Sheet", "make", "render"]
