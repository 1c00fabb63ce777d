"""Makes table rows of a learner step's episodes, for the run's trackers."""

from collections.abc import Sequence

from awares_platform.data.images import Images
from awares_platform.grpo.group import Group
from awares_platform.runtime.tracking.samples import sample_row
from awares_platform.runtime.tracking.tracker import SampleRow


def sample_rows(groups: Sequence[Group], images: Images) -> list[SampleRow]:
    """Return one row per group, for the group's first episode that did not fail.

    A group without such an episode has no row. Raises DataError or StoreError if an image cannot be
    read.
    """
    rows = []
    for group in groups:
        member = next((one for one in group.members if not one.failed), None)
        if member is not None:
            rows.append(
                sample_row(
                    group.prompt.sample,
                    member.episode,
                    images(member.episode.image),
                    correct=member.correct,
                    reward=member.reward.total,
                    parts=dict(member.reward.parts),
                )
            )
    return rows
