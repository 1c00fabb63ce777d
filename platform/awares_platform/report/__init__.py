"""Builds the report of a run: one self-contained HTML page from the files that the jobs wrote.

The modules on the right build sections from the files on the left. page.py assembles the sections:

    <run.directory>/<run.name>/
      */metrics.jsonl --------------+                +- curves.py    training: reward, RTR, KL, ...
      evaluate/results.json --------+- records.py ---+- tables.py    results in the paper's form
      evaluate/episodes-*.parquet --+                +- tradeoff.py  accuracy against visual tokens
      progress.json ----------------+                +- shift.py     requests after SFT and GRPO
                                                     +- times.py     duration and CPU time of jobs
      */config.json ----------------+                +- identity.py  policy, data, dates, settings
      images in the store ---------------------------+- episodes.py  a dozen drawn episodes
      the journal in the store ----------------------+- viewer.py    trajectories to filter
      another run -----------------------------------+- comparison.py   differences of two runs
"""

from awares_platform.report.page import run

__all__ = ["run"]
