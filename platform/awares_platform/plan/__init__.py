"""Computes the memory, traffic and GPU-hours of a run from its setup, before anyone rents a GPU.

The modules, by purpose:

    inputs   assumptions, geometry (sizes of the model), lengths (tokens of an episode)
    memory   trainer, engine, caches
    traffic  traffic
    time     ranks, hours, division (of GPUs between learner and rollouts)
    output   sheet (all figures), table

All figures are estimates.
"""

from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.sheet import Sheet, make
from awares_platform.plan.table import render

__all__ = ["Assumptions", "Sheet", "make", "render"]
