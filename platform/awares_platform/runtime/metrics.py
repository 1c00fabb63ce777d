"""Records a job's metrics as JSON lines.

    job -- report(step, {"area/name": value}) --+-- metrics.jsonl -- read -- report.html
                                                +-- Ray's metrics agent -- Prometheus

If the disk or the exporter fails, the run continues, and the rows wait in memory.
"""

import json
import logging
import math
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from awares_platform.runtime.prometheus import Gauges

log = logging.getLogger(__name__)
_MOST_UNWRITTEN = 10_000
_KEY = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_.@-]+)+")


@dataclass(frozen=True, slots=True)
class Row:
    """The values that a job reported for one step. None replaces inf and nan.

    `time` is the Unix time of the report, in seconds.

    Example:
        Row(12, 1763800000.0, {"reward/mean": 8.4, "policy/rtr_token": 0.41})
    """

    step: int
    time: float
    values: Mapping[str, float | None]


class MetricsWriter:
    """Appends rows to `<directory>/metrics.jsonl`, and copies the values to `gauges` if given.

    If a write fails, for example on a full disk, the row waits in memory for the next report.
    """

    def __init__(self, directory: Path, gauges: Gauges | None = None) -> None:
        self.path = directory / "metrics.jsonl"
        self._gauges = gauges
        self._failed = False
        self._unwritten: deque[str] = deque(maxlen=_MOST_UNWRITTEN)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Record the `values` of a step. Each key has the form "area/name"."""
        assert all(_KEY.fullmatch(key) for key in values), f"metric keys are area/name: {[*values]}"
        finite = {key: float(x) if math.isfinite(x) else None for key, x in values.items()}
        row = Row(step, round(time.time(), 3), finite)
        self._unwritten.append(
            json.dumps({"step": row.step, "time": row.time, **row.values}) + "\n"
        )
        self._write()
        if self._gauges:
            self._gauges.report(values)

    def _write(self) -> None:
        # An earlier failed write may have left an incomplete line. The leading "\n" ends it.
        text = ("\n" if len(self._unwritten) > 1 else "") + "".join(self._unwritten)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
            self._unwritten.clear()
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("%s: metrics wait in memory (%s); the run goes on", self.path, error)
            self._failed = True


def read(path: Path) -> list[Row]:
    """Return the rows of a metrics.jsonl file in order of their steps.

    The function skips incomplete lines. If a resumed run reports a step again, the later values
    replace the earlier values.
    """
    merged: dict[int, Row] = {}
    for line in path.read_text("utf-8").splitlines():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue
        row = Row(fields.pop("step"), fields.pop("time"), fields)
        earlier = merged[row.step].values if row.step in merged else {}
        merged[row.step] = Row(row.step, row.time, {**earlier, **row.values})
    return [merged[step] for step in sorted(merged)]
