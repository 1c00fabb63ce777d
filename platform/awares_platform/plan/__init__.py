"""`awares plan`: what a run needs, before any GPU is rented. Arithmetic only: nothing is downloaded, nothing but the setup is read.

    setup ── geometry ── parameters, KV bytes per token ──┬── trainer   memory of an SFT and of a GRPO rank, by ZeRO stage
    assumptions ── lengths ── tokens per episode ─────────┼── engine    memory of a rollout GPU, episodes in flight
                                                          ├── traffic   bytes to and from the bucket per learner step
                                                          └── hours     hours and GPU-hours of sft and grpo
                                                                        └── sheet   all of it, JSON ── table

Every formula names its source where it stands. Figures are estimates within the assumptions that the table ends with.
"""

from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.sheet import Sheet, make
from awares_platform.plan.table import render

__all__ = ["Assumptions", "Sheet", "make", "render"]
