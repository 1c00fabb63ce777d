"""Computes the metrics of each learner step.

The metrics describe the rewards and behaviour of the batch's episodes, the actors' loads of new
weights, and how busy the engines and the learner are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from awares.episode import StopReason
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.engine.usage import EngineUsage
from awares_platform.grpo.engine_metrics import EngineMetrics
from awares_platform.grpo.group import Group, Member, StepBatch
from awares_platform.grpo.lineage import Lineage


class StepMetrics:
    """Collects events between two steps and returns the metrics of each step."""

    def __init__(self) -> None:
        self._engines = EngineMetrics()
        self._loads: list[Loaded] = []
        # The weight version that each running actor has loaded, by the actor's index.
        self._versions: dict[int, int] = {}
        self._missed = 0
        self._outcomes: Counter[str] = Counter()
        self._episodes = 0
        self._restarts = 0

    def loaded(self, actor: int, load: Loaded) -> None:
        """Record that an actor loaded a version."""
        self._loads.append(load)
        self._versions[actor] = load.version

    def missed(self, miss: Missed) -> None:
        """Count a failed attempt of an actor to read HEAD or to load a version."""
        self._missed += 1

    def used(self, usage: EngineUsage | None) -> None:
        """Record the usage of an engine up to now. Ignore None."""
        if usage is not None:
            self._engines.used(usage)

    def finished(self, group: Group) -> None:
        """Count a group under its outcome."""
        self._outcomes[group.outcome.value] += 1

    def restarted(self, actor: int) -> None:
        """Count an actor that died and is replaced."""
        self._restarts += 1
        self.gone(actor)

    def gone(self, actor: int) -> None:
        """Forget the version of an actor that no longer runs."""
        self._versions.pop(actor, None)

    def step(
        self,
        batch: StepBatch,
        version: int,
        described: Mapping[str, float],
        learned: Mapping[str, float],
    ) -> dict[str, float]:
        """Return all metrics of a step that updated `version`.

        `described` holds the `batch_metrics` of the batch, and `learned` the learner's metrics of
        the step. weights/lag is the largest number of versions that an actor is behind `version`.
        """
        self._episodes += sum(len(group.members) for group in batch.groups)
        versions = self._versions.values()
        lag = {"weights/lag": float(version - min(versions))} if versions else {}
        fleet = self._fleet()
        metrics = {
            **described,
            **fleet,
            "groups/uniform_share": _uniform_share(batch.groups, fleet["groups/uniform"]),
            **lag,
            "time/rollout": fmean(group.seconds for group in batch.groups),
            **self._engines.step(),
            "progress/episodes": float(self._episodes),
            **learned,
        }
        return metrics

    def _fleet(self) -> dict[str, float]:
        """Return the metrics of loads and outcomes since the last step, and reset their counters.

        The metric actors/restarts is never reset.
        """
        loads, self._loads = self._loads, []
        missed, self._missed = self._missed, 0
        outcomes, self._outcomes = self._outcomes, Counter()
        metrics = {
            "groups/ready": float(outcomes["ready"]),
            "groups/uniform": float(outcomes["uniform"]),
            "groups/failed": float(outcomes["failed"]),
            "groups/nonfinite": float(outcomes["nonfinite"]),
            "groups/unfinished": float(outcomes["unfinished"]),
            "actors/restarts": float(self._restarts),
            "weights/missed": float(missed),
            "weights/detours": float(sum(load.report.prefetched.detours for load in loads)),
        }
        return {**metrics, **_loading(loads)} if loads else metrics


def batch_metrics(batch: StepBatch, version: int, lineage: Lineage) -> dict[str, float]:
    """Return the metrics of the episodes of a batch that updates `version`.

    `lineage` is the learner's lineage. The function takes about 0.1 seconds for 13,000 episodes.
    """
    members = [member for group in batch.groups for member in group.members]
    return {**_behaviour(members), **_staleness(batch.groups, version, lineage)}


def _loading(loads: Iterable[Loaded]) -> dict[str, float]:
    """Return metrics of `loads`: times in seconds, the size in bytes, and canary differences.

    The times and the size are means. canary/dlogp is the largest LoadReport.canary_dlogp.
    canary/slope is the LoadReport.canary_slope that is furthest from 1.
    """
    reports = [load.report for load in loads]
    staged = [report.prefetched for report in reports]
    canary = [report.canary_dlogp for report in reports if report.canary_dlogp is not None]
    slopes = [report.canary_slope for report in reports if report.canary_slope is not None]
    return {
        "time/load": fmean(load.load_s for load in loads),
        "time/fetch": fmean(stage.fetch_s for stage in staged),
        "time/decode": fmean(stage.decode_s for stage in staged),
        "time/verify": fmean(stage.verify_s for stage in staged),
        "time/apply": fmean(report.apply_s for report in reports),
        "time/pause": fmean(report.pause_s for report in reports),
        "weights/loaded_bytes": fmean(stage.size for stage in staged),
        **({"canary/dlogp": max(canary)} if canary else {}),
        **({"canary/slope": max(slopes, key=lambda slope: abs(slope - 1))} if slopes else {}),
    }


def _behaviour(members: Iterable[Member]) -> dict[str, float]:
    every = list(members)
    played = [member for member in every if not member.failed] or every
    sampled = sum(member.episode.packed.sampled_count for member in every)
    return {
        **_parts(played),
        "reward/mean": fmean(member.reward.total for member in played),
        "accuracy/train": fmean(member.correct for member in played),
        "rtr/token": fmean(member.episode.rtr_token for member in played),
        "rtr/pixel": fmean(member.episode.rtr_pixel for member in played),
        "call/rate": fmean(bool(member.episode.crops) for member in played),
        "call/malformed": fmean(member.episode.stop is StopReason.MALFORMED for member in played),
        "episodes/error": fmean(member.failed for member in every),
        "tokens/sampled": float(sampled),
        "tokens/visual": float(sum(member.episode.visual_tokens for member in every)),
    }


def _parts(members: Sequence[Member]) -> dict[str, float]:
    """Return the mean of each reward part over the members that have this part."""
    names = dict.fromkeys(name for member in members for name in member.reward.parts)
    return {
        f"reward/{name}": fmean(
            member.reward.parts[name] for member in members if name in member.reward.parts
        )
        for name in names
    }


def _uniform_share(groups: Sequence[Group], dropped: float) -> float:
    """Return the share of groups whose rewards are all equal.

    The share counts the groups of the batch, and also the `dropped` uniform groups that were left
    out of the batch.
    """
    rewards = [{member.reward.total for member in group.members} for group in groups]
    uniform = sum(len(totals) == 1 for totals in rewards) + dropped
    return uniform / (len(groups) + dropped)


def _staleness(groups: Iterable[Group], version: int, lineage: Lineage) -> dict[str, float]:
    """Return the mean and maximum number of updates by which tokens are behind `version`."""
    tokens = Counter[int]()
    for group in groups:
        for member in group.members:
            for one, count in member.episode.packed.tokens:
                tokens[one] += count
    behind = {token: lineage.behind(token, version) or 0 for token in tokens}
    total = sum(behind[token] * count for token, count in tokens.items())
    return {
        "staleness/mean": total / max(1, tokens.total()),
        "staleness/max": float(max(behind.values(), default=0)),
    }
