"""Builds the report of a run: one self-contained HTML page from the files that the jobs wrote.

    <run.directory>/<run.name>/
      {sft,grpo}/metrics.jsonl -----+                +- curves.py    training: reward, RTR, KL, ...
      evaluate/results.json --------+- records.py ---+- tables.py    results in the paper's form
      evaluate/episodes-*.parquet --+                +- tradeoff.py  accuracy against visual tokens
      progress.json ----------------+                +- shift.py     requests after SFT, after GRPO
                                                     +- times.py     duration and CPU time of jobs
      images in the store ---------------------------+- episodes.py  a dozen drawn episodes

page.py assembles the sections. The page contains no script and loads no other file.
"""

from awares_platform.report.page import run

__all__ = ["run"]
