"""Counts the groups that the learner cannot use, and stops a run in which no group is usable."""

import logging

from awares.errors import DataError
from awares_platform.data.dataset import REPORTED_FAULTS
from awares_platform.grpo.group import Group, Outcome
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)


class UnusableGroups:
    """Counts the unusable groups of a run with `samples` samples.

    The run stops after `most` unusable groups in a row.

    Example:
        unusable = UnusableGroups(samples=10_000, most=64)
        unusable.check(group)
    """

    def __init__(self, samples: int, most: int) -> None:
        self._samples, self._most = samples, most
        self._fruitless = 0
        self._nonfinite = 0
        # The ids of the samples that no actor can play, because their data have a fault.
        self._unplayable: set[str] = set()

    @property
    def unplayable(self) -> int:
        """The number of samples that cannot be played."""
        return len(self._unplayable)

    def check(self, group: Group) -> None:
        """Count the group if it cannot be used, and log the first few such groups.

        Raises DataError if no sample can be played. After `most` unusable groups in a row, raises
        LaunchError or DataError.
        """
        self._report_nonfinite(group)
        self._refuse_fruitless(group)
        self._leave_out(group)

    def _leave_out(self, group: Group) -> None:
        sample = group.prompt.sample.sample_id
        if not group.fault or sample in self._unplayable:
            return
        self._unplayable.add(sample)
        if len(self._unplayable) <= REPORTED_FAULTS:
            log.warning("left out %s: %s", sample, group.fault)
        if len(self._unplayable) == self._samples:
            raise DataError(
                f"none of the {self._samples} questions can be played; "
                f"the last, {sample}: {group.fault}"
            )

    def _refuse_fruitless(self, group: Group) -> None:
        """Raise an error after `most` unusable groups in a row.

        Ignore a prompt that cannot be played, because it says nothing about the engine.
        """
        if group.fault:
            return
        useless = group.outcome in (Outcome.FAILED, Outcome.NONFINITE)
        self._fruitless = self._fruitless + 1 if useless else 0
        if self._fruitless < self._most:
            return
        if group.outcome is Outcome.NONFINITE:
            raise DataError(
                f"{self._fruitless} groups in a row cannot be learned from; in the last, "
                f"{group.nonfinite}: correct method.reward, or the policy if it samples such tokens"
            )
        errors = sorted({member.episode.error for member in group.members if member.episode.error})
        raise LaunchError(
            f"{self._fruitless} groups in a row had fewer than two usable episodes; "
            f"the last failed with: {'; '.join(errors)}"
        )

    def _report_nonfinite(self, group: Group) -> None:
        if group.outcome is Outcome.NONFINITE:
            self._nonfinite += 1
            if self._nonfinite <= REPORTED_FAULTS:
                log.warning("dropped a group: %s", group.nonfinite)
