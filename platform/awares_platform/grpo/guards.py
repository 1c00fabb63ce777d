"""Watches a run's metrics, and says what must happen when a metric leaves its bounds."""

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean

from awares.errors import AwaresError
from awares_platform.config.guards import GuardsConfig, PolicyAction

FREE = "disk/free_gib"
DECLINE = "validation/decline"
_AT_ONCE = {FREE, DECLINE}
"""For these metrics, a guard checks the newest value instead of the mean over several steps."""


class GuardTripped(AwaresError):
    """Raised when a metric has left the bounds of a guard whose action is "stop"."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The bounds of one metric, and the action when the metric leaves them.

    Example:
        Guard("kl", "policy/kl", "stop", -inf, 2.0, "raise grpo.kl_beta")
    """

    key: str
    """The start of the bounds' keys in [grpo.guards]: <key>_below and <key>_above."""
    metric: str
    action: PolicyAction
    below: float
    above: float
    advice: str
    """The end of the guard's message."""

    def fault(self, value: float, what: str) -> str | None:
        """Return a sentence that says which bound `value` violates, or None if it violates none.

        `what` names the value. NaN violates the bounds.
        """
        if self.below <= value <= self.above:
            return None
        side, key, bound = "below", f"{self.key}_below", self.below
        if not value < self.below:
            side, key, bound = "above", f"{self.key}_above", self.above
        return f"{what} is {value:.4g}, {side} grpo.guards.{key}={bound:g}: {self.advice}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A metric has left its bounds. If `restore` is true, the best version must be restored.

    Example:
        Alarm("step 40: the mean of policy/kl over 10 steps is 3.1, above ...", restore=True)
    """

    sentence: str
    restore: bool


class Guards:
    """Compares the metrics of a run with the bounds of `settings`, step by step.

    - `directory` is the run directory, and `free` returns the free bytes of its file system.
    - `asks` is false if the policy never requests crops; the metric call/rate then has no guard.

    Example:
        guards = Guards(config.grpo.guards, config.run.directory, asks=True)
        for step, metrics in steps:
            for alarm in guards.check(step, metrics):
                progress.say(alarm.sentence)
    """

    def __init__(
        self,
        settings: GuardsConfig,
        directory: Path,
        asks: bool,
        free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._window, self._directory, self._free = settings.window, directory, free
        found = [*_of_policy(settings), _disk(settings)]
        self._guards = [
            guard
            for guard in found
            if guard.action != "off" and (asks or guard.metric != "call/rate")
        ]
        self._values: dict[str, deque[float]] = {
            guard.key: deque(maxlen=1 if guard.metric in _AT_ONCE else settings.window)
            for guard in self._guards
        }
        self._outside: set[str] = set()

    def reset(self) -> None:
        """Forget all values, because they belong to a policy that has been replaced."""
        self._outside.clear()
        for values in self._values.values():
            values.clear()

    def check(self, step: int, metrics: Mapping[str, float]) -> Iterator[Alarm]:
        """Yield an alarm for each guard whose metric has just left its bounds.

        Raises GuardTripped instead if the guard's action is "stop". A guard gives no second alarm
        until its metric has returned to the bounds.
        """
        found = {**metrics, FREE: self._free(self._directory) / 2**30}
        for guard in self._guards:
            if guard.metric not in found:
                continue
            values = self._values[guard.key]
            values.append(found[guard.metric])
            if len(values) < (values.maxlen or 0):
                continue
            sentence = guard.fault(fmean(values), self._name(guard))
            if sentence is None:
                self._outside.discard(guard.key)
            elif guard.key not in self._outside:
                self._outside.add(guard.key)
                yield self._acted(guard, step, sentence)

    def _name(self, guard: Guard) -> str:
        if guard.metric == FREE:
            return f"the free space of {self._directory} in GiB"
        if guard.metric == DECLINE:
            return "the fall of the held-out accuracy at a higher reward"
        return f"the mean of {guard.metric} over {self._window} steps"

    def _acted(self, guard: Guard, step: int, sentence: str) -> Alarm:
        """Return the alarm. Raises GuardTripped instead if the guard's action is "stop"."""
        if guard.action == "stop":
            raise GuardTripped(
                f"stopped after step {step}: {sentence}. With the same settings, the run "
                f'goes on from its last checkpoint; grpo.guards.{guard.key}="warn" only warns'
            )
        return Alarm(f"step {step}: {sentence}", guard.action == "restore-best")


def _of_policy(settings: GuardsConfig) -> Iterator[Guard]:
    """Yield the guards of the metrics that describe the policy."""
    yield Guard(
        "kl",
        "policy/kl",
        settings.kl,
        below=-inf,
        above=settings.kl_above,
        advice="the policy is far from its start; lower grpo.learning_rate or raise grpo.kl_beta",
    )
    yield Guard(
        "call_rate",
        "call/rate",
        settings.call_rate,
        below=settings.call_rate_below,
        above=settings.call_rate_above,
        advice="the policy no longer chooses when to ask; change method.alpha_use or alpha_miss",
    )
    yield Guard(
        "held_out",
        DECLINE,
        settings.held_out,
        below=-inf,
        above=settings.held_out_above,
        advice="the policy learns the reward and not the task; change method.reward",
    )
    yield Guard(
        "malformed",
        "call/malformed",
        settings.malformed,
        below=-inf,
        above=settings.malformed_above,
        advice="the policy forgets the form of a request; lower grpo.learning_rate",
    )
    yield Guard(
        "uniform",
        "groups/uniform_share",
        settings.uniform,
        below=-inf,
        above=settings.uniform_above,
        advice="few groups teach anything; raise grpo.temperature or choose other questions",
    )
    yield Guard(
        "entropy",
        "policy/surprise",
        settings.entropy,
        below=settings.entropy_below,
        above=inf,
        advice="the policy hardly samples any more; raise grpo.temperature or grpo.kl_beta",
    )


def _disk(settings: GuardsConfig) -> Guard:
    return Guard(
        "disk_free_gib",
        FREE,
        settings.disk_free_gib,
        below=settings.disk_free_gib_below,
        above=inf,
        advice="free some space, or set run.directory to a larger file system",
    )
