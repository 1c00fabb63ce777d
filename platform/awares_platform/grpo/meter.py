"""What a learner step reports: the batch's rewards and behaviour, the actors' loads, and how far rollouts and learning overlap."""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import fmean

from awares.episode import StopReason
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.grpo.group import Batch, Group, Member


class Overlap:
    """Wall time in which groups were being rolled out, as a function of time; `change` is called in order of time."""

    def __init__(self) -> None:
        self._active = 0
        self._since = 0.0
        self._spans: list[tuple[float, float]] = []

    def change(self, active: int, now: float) -> None:
        """From `now` on, `active` groups are in flight."""
        if self._active == 0 and active > 0:
            self._since = now
        elif self._active > 0 and active == 0:
            self._spans.append((self._since, now))
        self._active = active

    def fraction(self, start: float, end: float) -> float:
        """Share of [start, end] in which a group was in flight. Forgets what lies before `start`: later questions start later."""
        spans = [*self._spans, (self._since, end)] if self._active else self._spans
        self._spans = [span for span in self._spans if span[1] > start]
        busy = sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in spans)
        return busy / (end - start) if end > start else 0.0


class Meter:
    """Collects between two steps and yields the step's metrics."""

    def __init__(self) -> None:
        self.overlap = Overlap()
        self._loads: list[Loaded] = []
        self._versions: dict[int, int] = {}  # what each living actor generates with
        self._missed = 0
        self._outcomes: Counter[str] = Counter()
        self._episodes = 0
        self._restarts = 0

    def loaded(self, actor: int, load: Loaded) -> None:
        """An actor loaded a version."""
        self._loads.append(load)
        self._versions[actor] = load.version

    def missed(self, miss: Missed) -> None:
        """An actor could not load a version."""
        self._missed += 1

    def finished(self, group: Group) -> None:
        """A group came back, of whatever outcome."""
        self._outcomes[group.outcome.value] += 1

    def restarted(self, actor: int) -> None:
        """An actor died and is replaced."""
        self._restarts += 1
        self._versions.pop(actor, None)

    def step(
        self, batch: Batch, version: int, learned: Mapping[str, float], start: float, end: float
    ) -> dict[str, float]:
        """All metrics of a finished step that updated `version`, at work from `start` to `end`. weights/lag: how many versions the
        actor that is furthest behind has yet to load."""
        members = [member for group in batch.groups for member in group.members]
        self._episodes += len(members)
        metrics = {
            **_behaviour(members),
            **_staleness(batch.groups, version),
            **self._fleet(),
            **(
                {"weights/lag": float(version - min(self._versions.values()))}
                if self._versions
                else {}
            ),
            "time/rollout": fmean(group.seconds for group in batch.groups),
            "overlap/fraction": self.overlap.fraction(start, end),
            "progress/episodes": float(self._episodes),
            **learned,
        }
        return metrics

    def _fleet(self) -> dict[str, float]:
        """Loads and outcomes since the last step."""
        loads, self._loads = self._loads, []
        missed, self._missed = self._missed, 0
        outcomes, self._outcomes = self._outcomes, Counter()
        metrics = {
            "groups/ready": float(outcomes["ready"]),
            "groups/uniform": float(outcomes["uniform"]),
            "groups/failed": float(outcomes["failed"]),
            "actors/restarts": float(self._restarts),
            "weights/missed": float(missed),
            "weights/detours": float(sum(load.report.prefetched.detours for load in loads)),
        }
        return {**metrics, **_loading(loads)} if loads else metrics


def _loading(loads: Iterable[Loaded]) -> dict[str, float]:
    """Means over loads, in seconds and bytes; of the canary the worst."""
    reports = [load.report for load in loads]
    staged = [report.prefetched for report in reports]
    canary = [report.canary_dlogp for report in reports if report.canary_dlogp is not None]
    return {
        "time/load": fmean(load.load_s for load in loads),
        "time/fetch": fmean(stage.fetch_s for stage in staged),
        "time/decode": fmean(stage.decode_s for stage in staged),
        "time/verify": fmean(stage.verify_s for stage in staged),
        "time/apply": fmean(report.apply_s for report in reports),
        "time/pause": fmean(report.pause_s for report in reports),
        "weights/loaded_bytes": fmean(stage.size for stage in staged),
        **({"canary/dlogp": max(canary)} if canary else {}),
    }


def _behaviour(members: Iterable[Member]) -> dict[str, float]:
    every = list(members)
    played = [member for member in every if not member.failed] or every
    sampled = sum(len(turn.sampled_ids) for member in every for turn in member.episode.turns)
    return {
        "reward/mean": fmean(member.reward for member in played),
        "reward/answer": fmean(member.answer for member in played),
        "reward/cost": fmean(member.cost for member in played),
        "accuracy/train": fmean(member.correct for member in played),
        "rtr/token": fmean(member.episode.rtr_token for member in played),
        "rtr/pixel": fmean(member.episode.rtr_pixel for member in played),
        "call/rate": fmean(bool(member.episode.crops) for member in played),
        "call/malformed": fmean(member.episode.stop is StopReason.MALFORMED for member in played),
        "episodes/error": fmean(member.failed for member in every),
        "tokens/sampled": float(sampled),
        "tokens/visual": float(sum(member.episode.visual_tokens for member in every)),
    }


def _staleness(groups: Iterable[Group], version: int) -> dict[str, float]:
    behind = [
        version - token
        for group in groups
        for member in group.members
        for turn in member.episode.turns
        for token in turn.versions
    ]
    return {
        "staleness/mean": fmean(behind) if behind else 0.0,
        "staleness/max": float(max(behind, default=0)),
    }
