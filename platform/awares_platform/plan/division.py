"""Proposes how to divide GPUs between learner ranks and rollout actors.

The plan recommends the division with the shortest run. If learners and engines have GPUs of
different kinds, it recommends the fewest rollout actors with which the run is at most 2 % longer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from awares_platform.config.grpo import GrpoConfig

TOLERANCE = 0.02
"""A run counts as equally short if it takes at most this share longer than the shortest run."""


@dataclass(frozen=True, slots=True)
class Division:
    """A number of learner ranks, a number of rollout actors, and the hours of a run with both.

    Example:
        Division(learners=7, actors=1, hours=3.1)
    """

    learners: int
    actors: int
    hours: float

    def __str__(self) -> str:
        return f"{self.learners} + {self.actors}"


@dataclass(frozen=True, slots=True)
class Advice:
    """The setup's own division of its GPUs, and all divisions of these GPUs that can run.

    Example:
        Advice(chosen=Division(4, 4, 4.7), best=Division(7, 1, 3.1), divisions=(...))
    """

    chosen: Division
    """Division of the setup, even if it cannot run."""
    best: Division | None
    """Division that the plan recommends, or None if `divisions` is empty."""
    divisions: tuple[Division, ...]
    """Divisions that can run."""

    @property
    def excess(self) -> float:
        """The extra hours of `chosen` over `best`, as a share of the hours of `best`.

        The share is 0 if `best` is None.
        """
        return self.chosen.hours / self.best.hours - 1 if self.best else 0.0

    @property
    def followed(self) -> bool:
        """True if the setup follows the advice, or if there is no advice.

        The result is false if `excess` is larger than TOLERANCE. It is also false if `best` has as
        many learners as `chosen`, but fewer actors.
        """
        if self.best is None:
            return True
        surplus = self.best.learners == self.chosen.learners
        return self.excess <= TOLERANCE and not (surplus and self.best.actors < self.chosen.actors)


def advise(
    grpo: GrpoConfig,
    parallel: int,
    *,
    pools: bool,
    fits: Callable[[GrpoConfig], bool],
    hours: Callable[[GrpoConfig], float],
) -> Advice:
    """Return the divisions that can run, and the best of them.

    An engine has `parallel` GPUs. `pools` is true if learners and engines have GPUs of different
    kinds. `fits` says whether a setup can run, and `hours` returns the duration of its run.
    """
    divisions = tuple(
        Division(setup.learner_workers, setup.rollout_actors, hours(setup))
        for setup in _setups(grpo, parallel, pools)
        if fits(setup)
    )
    least = min((division.hours for division in divisions), default=0.0)
    short = [division for division in divisions if division.hours <= least * (1 + TOLERANCE)]
    best = min(
        short, key=lambda division: (division.actors if pools else 0, division.hours), default=None
    )
    return Advice(Division(grpo.learner_workers, grpo.rollout_actors, hours(grpo)), best, divisions)


def _setups(grpo: GrpoConfig, parallel: int, pools: bool) -> Iterator[GrpoConfig]:
    """Yield one section [grpo] for each division of the GPUs. Leave out invalid sections.

    If `pools` is true, only the number of actors varies, from 1 to the number in `grpo`.
    """
    gpus = grpo.learner_workers + grpo.rollout_actors * parallel
    for actors in range(1, (gpus - 1) // parallel + 1):
        learners = grpo.learner_workers if pools else gpus - actors * parallel
        if pools and actors > grpo.rollout_actors:
            return
        changed = {"learner_workers": learners, "rollout_actors": actors}
        try:
            yield GrpoConfig.model_validate(grpo.model_dump() | changed)
        except ValidationError:
            continue
