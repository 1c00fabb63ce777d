"""Finds lines in a job's output that come from a library such as Ray, not from this project."""

import re

OUR_LINE = re.compile(
    r"(data|import|curate|sft|grpo|evaluate) \[ *\d+ s\]: |[IW] \d\d:\d\d:\d\d awares_platform\."
)
"""Matches the beginning of each line that a job may print to stderr: progress and log lines."""
OUR_RESULT = re.compile(
    r"$|\| |\d+ held-out questions|(curate|sft|grpo|evaluate|labels|policy|results|next): "
    r"|page with all results: |.*/report\.html$"
)
"""Matches the beginning of each line that a job may print to stdout."""


def foreign(text: str, ours: re.Pattern[str]) -> list[str]:
    """Return the lines of `text` whose beginning `ours` does not match."""
    return [line for line in text.splitlines() if not ours.match(line)]
