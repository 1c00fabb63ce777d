"""Divides the advantages of a batch by the standard deviation of all rewards in the batch."""

from dataclasses import replace

from awares.advantage import batch_divisor
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.group import Group, Member, StepBatch


def batch_scaled(batch: StepBatch, settings: GrpoConfig) -> StepBatch:
    """Return `batch` with each advantage divided by std + grpo.std_eps.

    `std` is the standard deviation of the batch's rewards, without the episodes that have no
    advantage. If grpo.advantage_scale is not "batch", return `batch` unchanged.
    """
    if settings.advantage_scale != "batch":
        return batch
    rewards = [
        member.reward.total
        for group in batch.groups
        for member in group.members
        if member.advantage is not None
    ]
    divisor = batch_divisor(rewards, settings.std_eps)
    return replace(batch, groups=tuple(_divided(group, divisor) for group in batch.groups))


def _divided(group: Group, divisor: float) -> Group:
    def scaled(member: Member) -> Member:
        if member.advantage is None:
            return member
        return replace(member, advantage=member.advantage / divisor)

    return replace(group, members=tuple(map(scaled, group.members)))
