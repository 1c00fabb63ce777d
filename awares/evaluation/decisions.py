"""Diagnostics of the coupled decision: whether the policy asks for crops, and for which (paper, supplement 4)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awares.crops import CropId, area_fraction, crop_box
from awares.episode import Episode, StopReason
from awares.sample import Label, Sample

_LEAST_IOU = 0.25


@dataclass(frozen=True, slots=True)
class Decisions:
    """Shares in [0, 1]; None where nothing could be counted.

    Calls against labels, over labelled samples: `precision` (calls that were needed), `recall` (needed that were called), `f1`,
    `false_positive_rate` (calls among LR). Regions against target crops, over HR samples with a call and a target: `region_exact`
    (the same set) and `region_match` (IoU of the two regions at least 0.25). `mean_area` over calls; `valid_parse_rate` over
    attempts to call; `histogram` counts each crop, and "none" the episodes without a call.

    Example:
        decisions(zip(episodes, samples)).f1
    """

    call_rate: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false_positive_rate: float | None
    region_exact: float | None
    region_match: float | None
    mean_area: float | None
    valid_parse_rate: float | None
    histogram: dict[str, int]


def decisions(pairs: Iterable[tuple[Episode, Sample]]) -> Decisions:
    """Diagnostics over episodes and their samples; episodes that stopped by ERROR count nowhere."""
    played = [
        (episode, sample) for episode, sample in pairs if episode.stop is not StopReason.ERROR
    ]
    called = [bool(episode.crops) for episode, _ in played]
    needed = [
        (bool(episode.crops), sample.label is Label.HR)
        for episode, sample in played
        if sample.label is not None
    ]
    hits, calls, needs = (
        needed.count((True, True)),
        sum(call for call, _ in needed),
        sum(need for _, need in needed),
    )
    regions = [
        (episode.crops, sample.crops)
        for episode, sample in played
        if episode.crops and sample.label is Label.HR and sample.crops
    ]
    valid = [not _refused(episode) for episode, _ in played if episode.crops or _refused(episode)]
    return Decisions(
        call_rate=_share(called),
        precision=_ratio(hits, calls),
        recall=_ratio(hits, needs),
        f1=_ratio(2 * hits, calls + needs),
        false_positive_rate=_ratio(calls - hits, len(needed) - needs),
        region_exact=_share([set(asked) == set(target) for asked, target in regions]),
        region_match=_share([region_iou(asked, target) >= _LEAST_IOU for asked, target in regions]),
        mean_area=_share([area_fraction(episode.crops) for episode, _ in played if episode.crops]),
        valid_parse_rate=_share(valid),
        histogram=_histogram(episode for episode, _ in played),
    )


def region_iou(first: Sequence[CropId], second: Sequence[CropId]) -> float:
    """Intersection over union of the regions that two crop sets cover together; exact, since all crops lie on a 4 x 4 grid."""
    left, right = _cells(first), _cells(second)
    return len(left & right) / len(left | right)


def _cells(crops: Sequence[CropId]) -> set[tuple[int, int]]:
    boxes = [crop_box(crop, (4, 4)) for crop in crops]
    return {
        (x, y)
        for left, top, right, bottom in boxes
        for x in range(left, right)
        for y in range(top, bottom)
    }


def _refused(episode: Episode) -> bool:
    """Whether the first turn tried to call and was not readable."""
    return len(episode.turns) == 1 and episode.stop is StopReason.MALFORMED


def _histogram(episodes: Iterable[Episode]) -> dict[str, int]:
    counts = Counter(
        name
        for episode in episodes
        for name in ([crop.value for crop in episode.crops] or ["none"])
    )
    return {name: counts[name] for name in ("none", *(crop.value for crop in CropId))}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _share(values: Sequence[float]) -> float | None:
    return _ratio(sum(values), len(values))
