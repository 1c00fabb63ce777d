"""Builds the report of a run: one self-contained HTML page from the files that the jobs wrote.

records.py reads the files. page.py assembles the page from these sections:

    curves.py      training: reward, RTR, KL, ...
    tables.py      results in the paper's form
    tradeoff.py    accuracy against visual tokens
    shift.py       requests after SFT and GRPO
    times.py       duration and CPU time of jobs
    identity.py    policy, data, dates, settings
    episodes.py    a dozen drawn episodes
    viewer.py      trajectories to filter
    comparison.py  differences of two runs
"""

from awares_platform.report.page import run

__all__ = ["run"]
