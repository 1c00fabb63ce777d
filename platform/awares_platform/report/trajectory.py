"""Defines an episode as the viewer shows it, and finds what changed since an earlier version."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from awares.crops import Box
from awares.text_form import normalise
from awares_platform.grpo.group import Group, Member
from awares_platform.report.records import EpisodeRecord
from awares_platform.report.shift import region_name


@dataclass(frozen=True, slots=True)
class Trajectory:
    """An episode of one version of the policy. Boxes are in pixels of the image.

    Example:
        Trajectory(
            order=12, version="version 12", sample_id="q3", image="9f2c...", size=(64, 64),
            question="digit?", truth="7", answer="7", correct=True, stop="answer",
            turns=("GET_CROPS: ['0']", "7"), regions=("top left",), boxes=((0, 0, 32, 32),),
            evidence=(), reward=9.75, parts={"answer": 10.0, "cost": 0.25}, visual_tokens=8,
            rtr_token=0.5, changed=True,
        )
    """

    order: int
    """Versions are shown in ascending `order`."""
    version: str
    """Name of the version."""
    sample_id: str
    image: str
    """Content hash of the image."""
    size: tuple[int, int]
    """(width, height)."""
    question: str
    truth: str
    answer: str | None
    correct: bool
    stop: str
    turns: tuple[str, ...]
    """Text of each turn."""
    regions: tuple[str, ...]
    """Names of the requested regions."""
    boxes: tuple[Box, ...]
    """Boxes of the returned views."""
    evidence: tuple[Box, ...]
    """Annotated boxes."""
    reward: float | None
    """Reward, or None if it is unknown."""
    parts: Mapping[str, float]
    """Value of each part of the reward."""
    visual_tokens: int
    rtr_token: float
    changed: bool | None = None
    """True if no episode of the previous version has the same requests and the same answer.

    The value is None if no previous version is shown for this question.
    """

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dict that can be written as JSON."""
        return asdict(self)

    @property
    def outcome(self) -> tuple[tuple[str, ...], str | None]:
        """The requested regions and the normalised answer, by which versions are compared."""
        return self.regions, None if self.answer is None else normalise(self.answer)


def sampled(group: Group) -> list[Trajectory]:
    """Return the episodes of a group that have a turn. Episodes with the same tokens appear once.

    The version of an episode is the version that sampled its first token.
    """
    distinct = {
        (tuple(turn.sampled_ids for turn in member.episode.turns)): member
        for member in reversed(group.members)
        if member.episode.turns and member.episode.turns[0].versions
    }
    return [_sampled(group, member) for member in reversed(distinct.values())]


def _sampled(group: Group, member: Member) -> Trajectory:
    episode, sample = member.episode, group.prompt.sample
    version = episode.turns[0].versions[0]
    views = [view.box for turn in episode.turns[1:] for view in turn.views]
    return Trajectory(
        order=version,
        version=f"version {version}",
        sample_id=sample.sample_id,
        image=episode.image,
        size=episode.image_size,
        question=sample.question,
        truth=sample.answer,
        answer=episode.answer,
        correct=member.correct,
        stop=episode.stop.value,
        turns=tuple(turn.text for turn in episode.turns),
        regions=tuple(map(region_name, episode.crops)),
        boxes=tuple(box for box in views if box is not None),
        evidence=sample.evidence,
        reward=member.reward.total,
        parts=dict(member.reward.parts),
        visual_tokens=episode.visual_tokens,
        rtr_token=episode.rtr_token,
    )


def evaluated(episode: EpisodeRecord, order: int, version: str) -> Trajectory:
    """Return a held-out episode as a trajectory with the fields `order` and `version`."""
    return Trajectory(
        order=order,
        version=version,
        sample_id=episode.sample_id,
        image=episode.image,
        size=episode.size,
        question=episode.question,
        truth=episode.truth,
        answer=episode.answer,
        correct=episode.correct,
        stop=episode.stop,
        turns=episode.turns,
        regions=tuple(map(region_name, episode.crops)),
        boxes=episode.boxes,
        evidence=episode.evidence,
        reward=episode.reward,
        parts={},
        visual_tokens=episode.visual_tokens,
        rtr_token=episode.rtr_token,
    )


def compared(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Return the trajectories in the order of their versions, with `changed` filled in."""
    ordered = sorted(trajectories, key=lambda one: one.order)
    by_question: dict[str, dict[int, list[Trajectory]]] = {}
    for one in ordered:
        by_question.setdefault(one.sample_id, {}).setdefault(one.order, []).append(one)
    return [replace(one, changed=_changed(one, by_question[one.sample_id])) for one in ordered]


def _changed(one: Trajectory, versions: Mapping[int, Sequence[Trajectory]]) -> bool | None:
    earlier = [order for order in versions if order < one.order]
    if not earlier:
        return None
    return one.outcome not in {before.outcome for before in versions[max(earlier)]}
