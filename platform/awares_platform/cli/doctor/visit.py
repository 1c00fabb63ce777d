"""Collects the findings of one run of the doctor, called a visit, and limits its time."""

import time
from dataclasses import replace

from awares_platform.cli.doctor.examine import Work, examine
from awares_platform.cli.doctor.finding import Finding, worst
from awares_platform.runtime.progress import Progress

MORE_TIME = "Raise --seconds, or read the findings above for the check that took the time."


class Visit:
    """The findings so far, and the time that is left for further checks."""

    def __init__(self, limit_s: float, progress: Progress) -> None:
        self._limit_s, self._progress = limit_s, progress
        self._started, self._waited = time.monotonic(), 0.0
        self.findings: list[Finding] = []

    @property
    def left_s(self) -> float:
        """The seconds until the time limit, which can be negative."""
        return self._started + self._waited + self._limit_s - time.monotonic()

    def wait(self, check: str, work: Work, limit_s: float, remedy: str) -> bool:
        """Run a check, and return whether its findings contain no failure.

        The check may take `limit_s` seconds, which do not count towards the visit's time limit.
        """
        before = time.monotonic()
        passed = self._add(examine(check, work, limit_s, remedy, self._progress.say))
        self._waited += time.monotonic() - before
        return passed

    def run(
        self, check: str, work: Work, remedy: str, limit_s: float = 60.0, *, needed: bool = True
    ) -> bool:
        """Run a check, and return whether its findings contain no failure.

        Set `needed` to false if this setup can run although the check fails. A failure then becomes
        a warning.
        """
        if self.left_s <= 0:
            return self._add([Finding(check, "fail", "no time was left for it", MORE_TIME)])
        limit = min(limit_s, self.left_s)
        findings = worst(examine(check, work, limit, remedy, self._progress.say))
        if not needed:
            findings = [_softened(finding) for finding in findings]
        return self._add(findings)

    def skip(self, check: str, reason: str) -> None:
        """Record that the check is left out for this reason."""
        self._add([Finding(check, "skip", reason)])

    def _add(self, findings: list[Finding]) -> bool:
        for finding in findings:
            self.findings.append(finding)
            self._progress.say(f"{finding.status}: {finding.check}: {finding.found}")
        return all(finding.status != "fail" for finding in findings)


def _softened(finding: Finding) -> Finding:
    return replace(finding, status="warn") if finding.status == "fail" else finding
