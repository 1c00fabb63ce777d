"""The run's report: one self-contained HTML page, drawn from the files that the jobs left.

<run.directory>/<run.name>/{sft,grpo}/metrics.jsonl  --records.py-->  curves.py   reward, accuracy, RTR, calls, KL, staleness
.../evaluate/results.json                            --records.py-->  tables.py   the results as the paper prints them
                                                                      tradeoff.py accuracy over visual tokens
                                                                      shift.py    what SFT asks for, and what GRPO makes of it
.../evaluate/episodes-<policy>.parquet + images      --records.py-->  episodes.py a dozen episodes, drawn
                                                          page.py puts them together: no script, no address, no second file
"""

from awares_platform.report.page import run

__all__ = ["run"]
