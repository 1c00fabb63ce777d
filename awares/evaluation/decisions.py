"""Measures when and where a policy requests crops (paper, supplement 4).

A call is a granted request for crops.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awares.crops import Box, union_area
from awares.environment import Environment, count_regions, readable
from awares.episode import Episode, StopReason
from awares.sample import Label, Sample
from awares.ten_crops import TEN_CROPS

_LEAST_IOU = 0.25
# Regions are compared on an image of this size, where all crops have whole-number coordinates.
_NOMINAL = (1000, 1000)


@dataclass(frozen=True, slots=True)
class Decisions:
    """The figures of a set of episodes. A figure is None if its denominator is 0.

    A sample with the label HR needs a call, and a sample with the label LR needs none. Figures
    about HR or LR leave out samples without a label.

    Example:
        decisions(zip(episodes, samples)).f1
    """

    call_rate: float | None
    """The share of all episodes that have a call."""
    precision: float | None
    """Among the episodes with a call, the share that has an HR sample."""
    recall: float | None
    """Among the episodes with an HR sample, the share that has a call."""
    f1: float | None
    """The harmonic mean of precision and recall."""
    false_positive_rate: float | None
    """Among the episodes with an LR sample, the share that has a call."""
    region_exact: float | None
    """The share of episodes that request exactly the target regions.

    Covers episodes that have a call and an HR sample with target regions.
    """
    region_match: float | None
    """The share of episodes whose regions have an IoU of at least 0.25 with the target regions.

    Covers the same episodes as `region_exact`.
    """
    mean_area: float | None
    """The mean area that an episode with a call requests, as a share of the image."""
    valid_parse_rate: float | None
    """The share of readable requests among the first turns that try to request crops.

    First turns that the token limit has cut are left out.
    """
    histogram: dict[str, int]
    """The number of requests for each region. "none" counts episodes without a call."""


def decisions(
    pairs: Iterable[tuple[Episode, Sample]], environment: Environment = TEN_CROPS
) -> Decisions:
    """Return the figures of `Decisions` for episodes and their samples.

    Episodes with StopReason.ERROR are left out. If `environment` does not offer the target regions
    of a sample, the sample is left out of `region_exact` and `region_match`.
    """
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
        if episode.crops and sample.label is Label.HR and readable(environment, sample.crops)
    ]
    valid = [not _refused(episode) for episode, _ in played if episode.crops or _refused(episode)]
    return Decisions(
        call_rate=_share(called),
        precision=_ratio(hits, calls),
        recall=_ratio(hits, needs),
        f1=_ratio(2 * hits, calls + needs),
        false_positive_rate=_ratio(calls - hits, len(needed) - needs),
        region_exact=_share([set(asked) == set(target) for asked, target in regions]),
        region_match=_share(
            [region_iou(asked, target, environment) >= _LEAST_IOU for asked, target in regions]
        ),
        mean_area=_share([episode.area for episode, _ in played if episode.crops]),
        valid_parse_rate=_share(valid),
        histogram=_histogram([episode for episode, _ in played], environment),
    )


def region_iou(
    first: Sequence[str], second: Sequence[str], environment: Environment = TEN_CROPS
) -> float:
    """Return the intersection over union, 0 to 1, of the areas that two lists of regions show."""
    left, right = _boxes(first, environment), _boxes(second, environment)
    union = union_area([*left, *right])
    return (union_area(left) + union_area(right) - union) / union


def _boxes(regions: Sequence[str], environment: Environment) -> list[Box]:
    request = readable(environment, regions)
    assert request is not None, "an episode holds regions that its environment offers"
    return [view.box or (0, 0, *_NOMINAL) for view in environment.views(request, _NOMINAL)]


def _refused(episode: Episode) -> bool:
    """Return whether turn 1 ended with a malformed request that the token limit did not cut."""
    if len(episode.turns) != 1 or episode.turns[0].cut:
        return False
    return episode.stop is StopReason.MALFORMED


def _histogram(episodes: Sequence[Episode], environment: Environment) -> dict[str, int]:
    direct = sum(not episode.crops for episode in episodes)
    asked = [region for episode in episodes for region in episode.crops]
    return {"none": direct} | count_regions(asked, environment.regions)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _share(values: Sequence[float]) -> float | None:
    return _ratio(sum(values), len(values))
