"""Compares the speed of this project's GRPO and TRL's GRPOTrainer on the same two-turn tasks.

    PYTHONPATH=.:platform .venv/bin/python tests/benchmarks/trl.py [--quick] [--json PATH]

The main result is this project's episodes per second / TRL's. The first call installs TRL from
trl.txt, and trains the SFT policy from which both sides start.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from awares_platform.config import PlatformConfig
from awares_platform.runtime import metrics
from tests.benchmarks import trl_work
from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.watched import Watched, watch

ORDER = ("trl", "loop", "synchronous", "alone")
GOALS = {
    "episodes/s, this project over TRL": 2.5,
    "seconds to the first step, TRL over this project": 1.0,
    "episodes/s, asynchronous over synchronous": 1.3,
    "episodes/s, the loop over its engine alone": 0.9,
}
"""The smallest value that the project aims at for each ratio."""
SKIPPED = 3
"""The number of steps at the start of a run that do not count as the steady state.

This project's buffer of groups is full before the first step. The first steps therefore wait less
than later steps."""

Figures = dict[str, float]


class Bench:
    """Makes the runs of the benchmark, and keeps their files in `directory`."""

    def __init__(self, directory: Path, environment: Path, steps: int, tell: Any) -> None:
        self._directory, self._tell = directory, tell
        self._python = trl_work.python(environment)
        self._policy = trl_work.prepare(directory, tell)
        self._steps, self._run, self._last = steps, 0, ""
        self._cores = os.cpu_count() or 1
        trl_work.write_work(directory, self._policy, self._setup("work"), self._cores)

    def _setup(self, name: str, **grpo: Any) -> PlatformConfig:
        config = trl_work.setup(self._directory, name, self._steps, **grpo)
        return trl_work.started_from(self._policy, config)

    def measure(self, kind: str) -> Figures:
        """Make a run and return its figures. `kind` is one of ORDER."""
        self._run += 1
        self._tell(f"run {self._run}: {kind}")
        runs: dict[str, Callable[[], Figures]] = {
            "trl": self._trl,
            "loop": self._loop,
            "synchronous": lambda: self._loop(staleness_bound=0),
            "alone": self._alone,
        }
        return runs[kind]()

    def _trl(self) -> Figures:
        rows = self._directory / "trl.jsonl"
        rows.unlink(missing_ok=True)
        script = Path(__file__).with_name("trl_side.py")
        ran = watch(
            [str(self._python), "-P", str(script), str(self._directory)],
            {"PYTHONPATH": str(trl_work.ROOT), "OMP_NUM_THREADS": str(self._cores)},
            self._directory / "trl.log",
        )
        steps = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
        # TRL's last line sums up the run and has no reward.
        return self._figures(ran, [row["time"] for row in steps if "reward" in row])

    def _loop(self, **grpo: Any) -> Figures:
        # Take a new name, because a run with the name of an earlier run would resume that run.
        name = f"loop-{time.time_ns() // 10**9}"
        config = self._setup(name, **grpo)
        command = trl_work.command("grpo", config, self._directory)
        files = Path(config.run.directory) / name
        ran = watch(command, {}, self._directory / f"{name}.log")
        if not grpo:
            self._last = name
        rows = metrics.read(files / "grpo" / "metrics.jsonl")
        return self._figures(ran, [row.time for row in rows])

    def _alone(self) -> Figures:
        setup = self._directory / f"{self._last}-grpo.json"
        output = self._directory / "alone.json"
        script = Path(__file__).with_name("engine_alone.py")
        watch(
            [sys.executable, str(script), str(setup), str(output)], {}, output.with_suffix(".log")
        )
        return json.loads(output.read_text("utf-8"))

    def _figures(self, ran: Watched, times: list[float]) -> Figures:
        """Return the figures of a run whose steps ended at the Unix times `times`."""
        assert len(times) == self._steps, f"{len(times)} of {self._steps} steps have a time"
        grpo = self._setup("work").grpo
        episodes = grpo.groups_per_step * grpo.group_size
        first = min(SKIPPED, self._steps - 1) - 1
        steady = times[-1] - times[first]
        return {
            "rate": (self._steps - 1 - first) * episodes / steady,
            "first_s": times[0] - ran.started,
            "peak_gib": ran.peak_gib,
            "seconds": ran.seconds,
            "cpu_s": sum(ran.cpu_s.values()),
            **{f"cpu/{kind}": seconds for kind, seconds in ran.cpu_s.items()},
        }


def ratios(found: dict[str, list[Figures]]) -> dict[str, float]:
    """Return the ratio of each of GOALS: the median over all rounds."""
    pairs = {
        "episodes/s, this project over TRL": ("loop", "trl", "rate"),
        "seconds to the first step, TRL over this project": ("trl", "loop", "first_s"),
        "episodes/s, asynchronous over synchronous": ("loop", "synchronous", "rate"),
        "episodes/s, the loop over its engine alone": ("loop", "alone", "rate"),
    }
    return {
        name: median(
            upper[key] / lower[key] for upper, lower in zip(found[above], found[below], strict=True)
        )
        for name, (above, below, key) in pairs.items()
        if found.get(above) and found.get(below)
    }


def lines(found: dict[str, list[Figures]], steps: int) -> list[str]:
    """Return the tables and goals as lines of text. Each run has `steps` steps."""
    names = {
        "trl": "TRL",
        "loop": "this project",
        "synchronous": "staleness 0",
        "alone": "engine alone",
    }
    keys = {
        "episodes/s": "rate",
        "first step, s": "first_s",
        "peak memory, GiB": "peak_gib",
        "CPU of the run, s": "cpu_s",
    }
    table = [f"| run | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
    for kind, runs in found.items():
        cells = [
            f"{median(run[key] for run in runs):.1f}" if key in runs[0] else "-"
            for key in keys.values()
        ]
        table.append(f"| {names[kind]} | {' | '.join(cells)} |")
    goals = [f"- {name}: {ratio:.2f} (goal {GOALS[name]})" for name, ratio in ratios(found).items()]
    rounds = len(next(iter(found.values())))
    return [
        *table,
        "",
        *goals,
        "",
        f"{steps} steps a run, rounds: {rounds}; float32 on {os.cpu_count()} cores.",
    ]


def main() -> None:
    options = parser(__doc__, "fewer steps, one round", "trl")
    options.add_argument("--environment", type=Path, default=trl_work.ROOT / ".tools" / "trl")
    options.add_argument("--directory", type=Path, default=trl_work.ROOT / "runs" / "trl")
    options.add_argument("--steps", type=int, default=16, help="learner steps of each run")
    options.add_argument("--rounds", type=int, default=2, help="rounds, every second one reversed")
    options.add_argument("--only", nargs="+", choices=ORDER, default=ORDER, help="runs to make")
    given: argparse.Namespace = options.parse_args()
    steps, rounds = (4, 1) if given.quick else (given.steps, given.rounds)
    found: dict[str, list[Figures]] = {kind: [] for kind in ORDER if kind in given.only}
    with Screen() as screen:
        bench = Bench(given.directory.resolve(), given.environment.resolve(), steps, screen.tell)
        for number in range(rounds):
            # The kind "alone" replays the last run of the kind "loop", so "loop" must run first.
            order = [*found] if number % 2 == 0 else [*found][::-1]
            for kind in order:
                found[kind].append(bench.measure(kind))
                screen.show(f"{kind}: {json.dumps(found[kind][-1])}")
    text = lines(found, steps)
    print("\n".join(text))
    save(given, "trl", "\n".join(text), {"runs": found, "ratios": ratios(found)})


if __name__ == "__main__":
    main()
