"""Prints the progress of the quickstart's jobs, and estimates the time that is left.

The progress notes of a job show its current phase, and the share of the phase that is done.

    slowness  = measured seconds of some phases / typical seconds of the same phases
    time left = rest of this phase + slowness * typical seconds of all later phases

The typical seconds come from a quickstart on two cores. The slowness of this machine is measured
while the jobs run. Until the slowness is known, a printed line states at most the time left in the
current job. That time is known only in the job's last phase, from a count such as 12/80.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from awares_platform.config import PlatformConfig

KNOWN = 0.03
"""Share of the typical total time that must be measured before the total time left is estimated.

Only phases with `telling` set count towards this share.
"""
COUNTED = 0.1
"""Share of a job's last phase that must be done before the job's remaining time is estimated."""
_COUNT = re.compile(r"^(?P<done>\d+)/(?P<total>\d+)\b")


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a job.

    Example:
        Phase("steps", 248.0, telling=True)
    """

    marker: str
    """The phase begins with the first progress note that contains this text."""
    seconds: float
    """Typical duration."""
    telling: bool = False
    """Whether the duration of this phase predicts the duration of other phases."""


Phases = Mapping[str, tuple[Phase, ...]]


def typical(config: PlatformConfig) -> Phases:
    """Return the phases of each quickstart job for the sizes in `config`.

    The durations were measured with the default sizes. Phases that process questions, samples,
    episodes or answers are scaled in proportion to the number in `config`.
    """
    usual = PlatformConfig()
    test, train, tune, reinforce, answer = (
        size / base for size, base in zip(_sizes(config), _sizes(usual), strict=True)
    )
    return {
        "curate": (
            Phase("starting", 6),
            Phase("train split", 42 * train),
            Phase("test split", 9 * test),
            Phase("starting the engine", 46),
            Phase("questions", 132 * train),
        ),
        "sft": (Phase("starting", 24), Phase("steps", 187 * tune, telling=True)),
        "grpo": (
            Phase("starting", 15),
            Phase("starting the engines", 42),
            Phase("steps", 262 * reinforce, telling=True),
        ),
        "evaluate": (
            Phase("starting", 10),
            Phase("starting the engine", 30),
            Phase("questions", 75 * answer, telling=True),
        ),
        "serve": (Phase("starting", 3), Phase("starting the engine", 27), Phase("asking", 6)),
    }


def _sizes(config: PlatformConfig) -> tuple[int, int, int, int, int]:
    """Return the numbers of test and train questions, SFT samples, GRPO episodes and answers.

    The last number counts the answers of all evaluated policies together.
    """
    grpo, data = config.grpo, config.data
    return (
        data.test_samples,
        data.train_samples,
        config.sft.epochs * data.train_samples,
        grpo.steps * grpo.groups_per_step * grpo.group_size,
        len(config.evaluate.policies) * min(config.evaluate.questions, data.test_samples),
    )


class Pace:
    """Prints the current job's progress, the elapsed time and the time that is left.

    Example:
        pace = Pace(typical(config), finished=["curate"])
        pace.start("sft")
        pace.show("sft", "12/80 steps loss 0.3")
        pace.finish("sft")
    """

    def __init__(
        self,
        phases: Phases,
        finished: Sequence[str],
        stream: TextIO = sys.stdout,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = list(phases)
        # Keep the last job, `serve`, even if it is finished: every quickstart runs it again.
        self._pending = {
            job: list(parts)
            for job, parts in phases.items()
            if job not in finished or job == self._jobs[-1]
        }
        self._total = sum(part.seconds for parts in self._pending.values() for part in parts)
        self._stream = stream
        self._now = now
        self._began = self._started = now()
        # The measured and the typical seconds of all finished phases that have `telling` set.
        self._measured = (0.0, 0.0)
        self._enter(0.0)

    def skip(self, job: str) -> None:
        """Show that an earlier run has finished the job."""
        self._line(job, "finished earlier")

    def start(self, job: str) -> None:
        """Show that the job starts."""
        self._started = self._now()
        self._enter(0.0)
        self.show(job, "starting")

    def show(self, job: str, note: str) -> None:
        """Show the job's note, such as "12/80 steps", and update the time left."""
        self._follow(self._pending[job], note)
        elapsed = self.clock(self._now() - self._began)
        self._line(job, note, f"   ({elapsed} elapsed, {self._stated(job)})")

    def finish(self, job: str) -> None:
        """Show that the job has finished."""
        self._close(self._pending.pop(job)[0])
        self._enter(0.0)
        self._line(job, f"done in {self.clock(self._now() - self._started)}")

    def _stated(self, job: str) -> str:
        """Return a text with the time left in all jobs, or only in `job`, as far as it is known."""
        left = self.remaining(job)
        if left is not None:
            return f"about {rounded(left)} left"
        (phase, *later), counted = self._pending[job], self._share - self._first_share
        if later or counted < COUNTED:
            return "time left not known yet"
        return f"about {rounded(self._rest(phase))} of {job} left, the rest is not known yet"

    def remaining(self, job: str) -> float | None:
        """Return the estimated seconds until all jobs end, or None if there is no estimate yet.

        `job` is the job that runs now.
        """
        phase, *later = self._pending[job]
        measured, weight = self._so_far(phase)
        if weight <= 0 or weight < KNOWN * self._total:
            return None
        slowness = measured / weight
        rest = sum(part.seconds for part in later) + sum(
            part.seconds for other, parts in self._pending.items() if other != job for part in parts
        )
        return self._rest(phase, slowness) + slowness * rest

    def _rest(self, phase: Phase, slowness: float | None = None) -> float:
        """Return the estimated seconds until the phase ends.

        With `slowness`, the first estimate is `slowness` times the typical seconds. As the phase
        proceeds, its measured rate counts more.
        """
        done = self._share - self._first_share
        own = (self._counted_at - self._entered) / done if done > 0 else 0.0
        seconds = own
        if slowness is not None:
            seconds = slowness * phase.seconds
            if done > 0:
                seconds += self._share * (own - seconds)
        since = self._now() - self._counted_at
        return max((1 - self._share) * seconds - since, 0.0)

    def _so_far(self, phase: Phase) -> tuple[float, float]:
        """Return the measured and the typical seconds of all phases so far with `telling` set.

        `phase` is the current phase. If its `telling` is set, its measured part counts as well.
        """
        measured, weight = self._measured
        if phase.telling:
            measured += self._counted_at - self._entered
            weight += (self._share - self._first_share) * phase.seconds
        return measured, weight

    def _follow(self, phases: list[Phase], note: str) -> None:
        """Enter the phase whose marker is in `note`, and read from a count how much is done."""
        count = _COUNT.match(note)
        share = int(count["done"]) / max(int(count["total"]), 1) if count else 0.0
        # If several markers match, the longest one wins: "starting the engine" beats "starting".
        named = [index for index, phase in enumerate(phases) if phase.marker in note]
        index = max(named, key=lambda index: len(phases[index].marker), default=0)
        if index:
            self._close(phases[0])
            del phases[:index]
            self._enter(share)
        elif named and share > self._share:
            self._share, self._counted_at = share, self._now()

    def _enter(self, share: float) -> None:
        self._entered = self._counted_at = self._now()
        self._share = self._first_share = share

    def _close(self, phase: Phase) -> None:
        self._measured = self._so_far(phase)

    @staticmethod
    def clock(seconds: float) -> str:
        """Return a duration in minutes and seconds, such as 4:07."""
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"

    def _line(self, job: str, text: str, times: str = "") -> None:
        """Print a line. On a terminal, the next line replaces a line that has `times`."""
        head = f"[{self._jobs.index(job) + 1}/{len(self._jobs)}] {job:<8} "
        if self._stream.isatty():
            room = shutil.get_terminal_size().columns - len(head) - len(times) - 1
            if times and len(text) > room:
                text = text[: max(room - 3, 0)] + "..."
            self._stream.write(f"\r\033[K{head}{text}{times}" + ("" if times else "\n"))
        else:
            self._stream.write(f"{head}{text}{times}\n")
        self._stream.flush()


def rounded(seconds: float) -> str:
    """Return a duration as text: below 90 s in steps of 10 s, and otherwise in minutes.

    Example:
        rounded(734.0)  # "12 min"
    """
    if seconds >= 90:
        return f"{round(seconds / 60)} min"
    return f"{max(round(seconds / 10), 1) * 10} s"
