"""Computes the memory, traffic and GPU-hours of a run from its setup, before anyone rents a GPU.

assumptions  defines the options of `awares plan`, which describe the GPUs, the data and the policy
geometry     reads the sizes of the model, and counts its parameters and KV bytes per token
lengths      counts the tokens of an episode
trainer      computes the memory of a trainer's GPU
engine       computes the memory of a rollout GPU
caches       computes the host memory of the caches
traffic      computes the S3 bytes of a learner step
ranks        computes the time of a training step
hours        computes the hours and GPU-hours of SFT and GRPO
division     proposes numbers of learner ranks and rollout actors
sheet        collects all figures, and converts them to JSON
table        formats the sheet as text

`awares plan` prints the plan. The computation downloads nothing and needs no GPU. All figures are
estimates. The docstrings name the sources of the formulas. The printed table ends with the
assumptions.
"""

from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.sheet import Sheet, make
from awares_platform.plan.table import render

__all__ = ["Assumptions", "Sheet", "make", "render"]
