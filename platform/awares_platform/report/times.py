"""Formats the duration and the CPU time of the jobs as an HTML table."""

from collections.abc import Mapping
from html import escape


def times_table(wall_s: Mapping[str, float], cpu_s: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table with the duration of each job, and its CPU seconds in total and by kind.

    `wall_s` maps a job to its duration, and `cpu_s` to its CPU seconds by kind of process.
    """
    kinds = list(dict.fromkeys(kind for seconds in cpu_s.values() for kind in seconds))
    head = ["job", "duration", *(["CPU"] if kinds else []), *kinds]
    columns = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    rows = []
    for job, seconds in wall_s.items():
        cpu = cpu_s.get(job, {})
        cells = [duration(seconds), *([_seconds(sum(cpu.values()))] if kinds else [])]
        cells += [_seconds(cpu.get(kind, 0.0)) for kind in kinds]
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(job)}</th>{data}</tr>')
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def duration(seconds: float) -> str:
    """Return a duration in minutes and seconds.

    Example:
        duration(301.0)  # "5 min 01 s"
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 0.5 else "–"
