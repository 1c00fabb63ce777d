"""Decides how many rollout actors a run wants, from the idle time of the actors and the learner.

    every second --> observe(busy actors, running actors)
    every step   --> decide(wanted actors, seconds that the learner waited) --> Resize or None

An actor is busy while it has a group or held-out questions. The load is the mean number of busy
actors in a window of WINDOW_S seconds or more. `waits` is the share of the window in which the
learner waited for a batch.

- If waits < WAIT_ABOVE, the run wants at most load / SHRINK_TO actors. With the same load, each of
  these actors is busy for a fraction SHRINK_TO of the time.
- Otherwise, if load / n >= GROW_ABOVE for the n running actors, the run wants at least
  n / (1 - waits) actors. With so many, the learner would not have to wait.

Each decision begins a new window, and so does a restart of the learner. SHRINK_TO is below
GROW_ABOVE, so a run with a steady load does not alternate between two numbers of actors.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from awares_platform.config.grpo import GrpoConfig

WINDOW_S = 300.0
WAIT_ABOVE = 0.1
SHRINK_TO = 0.8
GROW_ABOVE = 0.9


@dataclass(frozen=True, slots=True)
class Resize:
    """The number of actors that the run should want, and the reason as text.

    Example:
        Resize(3, "over 300 s, 2.1 of 4.0 actors had work, and the learner waited 0%")
    """

    actors: int
    reason: str


def least_actors(settings: GrpoConfig) -> int:
    """Return the smallest number of actors to which a run shrinks.

    With fewer actors, the run says that it waits.
    """
    least = settings.rollout_actors_min
    return settings.rollout_actors if least is None else least


class Sizing:
    """Keeps the number of wanted actors between `least` and `most`, and above 0.

    Example:
        sizing = Sizing(least=1, most=4)
        sizing.observe(busy=1, running=4)
        if change := sizing.decide(wanted=4, waited_s=0.0):
            await fleet.resize(change.actors)
    """

    def __init__(self, least: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._most, self._clock = max(1, least), most, clock
        self.restart()

    def restart(self) -> None:
        """Begin a new window."""
        self._since = self._clock()
        self._seen = self._busy = self._running = 0
        self._waited_s = 0.0

    def observe(self, busy: int, running: int) -> None:
        """Note that `busy` of the `running` actors have work now."""
        self._seen += 1
        self._busy += busy
        self._running += running

    def decide(self, wanted: int, waited_s: float) -> Resize | None:
        """Return the new number of actors, or None if `wanted` needs no change.

        The learner waited `waited_s` seconds for the batch of its last step.
        """
        self._waited_s += waited_s
        passed = self._clock() - self._since
        if passed < WINDOW_S or not self._running:
            return None
        load, running = self._busy / self._seen, self._running / self._seen
        waits = min(1.0, self._waited_s / passed)
        self.restart()
        actors = min(max(_fitting(wanted, load, running, waits), self._least), self._most)
        reason = (
            f"over {passed:.0f} s, {load:.1f} of {running:.1f} actors had work, and the learner "
            f"waited {waits:.0%}"
        )
        return Resize(actors, reason) if actors != wanted else None


def _fitting(wanted: int, load: float, running: float, waits: float) -> int:
    """Return how many actors fit the load. The caller applies the minimum and the maximum."""
    if waits < WAIT_ABOVE:
        return min(wanted, math.ceil(load / SHRINK_TO))
    if load / running >= GROW_ABOVE:
        return max(wanted, math.ceil(running / max(1 - waits, 0.01)))
    return wanted
