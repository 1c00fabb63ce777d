"""Runs one rank of a GRPO learner on eight sequences, which three ranks cannot share evenly.

Usage: `python -m tests.integration.uneven_rank <rank> <ranks> <directory>`

Rank 0 writes the gradient norm and the weights to <directory>/<ZeRO stage>-<ranks>.pt.
"""

import math
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoProcessor

from awares.batch import Batch, collate
from awares.episode import Episode, StopReason, Turn
from awares.passes import PassBudget
from awares.reward import RewardValue
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares.tower import SharedTower
from awares.view import View
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.grpo.group import Group, Member, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.loss_metrics import LossMetrics
from awares_platform.grpo.objective import Objective
from awares_platform.grpo.shard import StepShard, TrainSequence, shards
from awares_platform.training import zero
from awares_platform.training.policy import load_policy
from tests.integration.process_group import process_group

STAGES = (2, 3)
SAMPLED = (9, 8, 8, 7, 6, 6, 5, 4)
"""The number of sampled tokens of each episode."""
RATE = 1e-3
LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=1_605_632)


def episodes(placeholder: int) -> list[Episode]:
    """Return episodes with different tokens. `placeholder` is the id that stands for an image."""
    made = []
    for number, count in enumerate(SAMPLED):
        ids = tuple(20 + (7 * number + 3 * place) % 40 for place in range(count))
        context, behaviour = (20, placeholder, 21), (-3.0,) * count
        versions, answered = (0,) * count, StopReason.ANSWER
        turn = Turn(
            context_ids=context,
            views=(View(None),),
            sampled_ids=ids,
            logprobs=behaviour,
            versions=versions,
            text="7",
            crops=(),
            stop=answered,
        )
        made.append(
            Episode(
                sample_id="s0",
                image="ab" * 32,
                image_size=(112, 112),
                turns=(turn,),
                answer="7",
                stop=answered,
                visual_tokens=4,
                rtr_token=0.25,
                rtr_pixel=0.25,
            )
        )
    return made


def step_shards(placeholder: int, ranks: int) -> list[StepShard]:
    """Return each rank's share of the episodes, as the controller distributes them."""
    members = tuple(
        Member(episode, RewardValue(0.0, {}), True, 1.0 - 0.3 * number)
        for number, episode in enumerate(episodes(placeholder))
    )
    sample = Sample("s0", "ab" * 32, "question?", "7")
    batch = StepBatch(0, (Group(Prompt(0, 0, sample), members, Outcome.READY),), Position(1))
    return shards(batch, ranks, 1, PassBudget(rows=1))


def main(rank: int, ranks: int, directory: Path) -> None:
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(directory / "base", local_files_only=True)
    image = Image.new("RGB", (112, 112), "teal")

    def collated(sequences: tuple[TrainSequence, ...]) -> Batch:
        return collate([item.episodes[0] for item in sequences], lambda _: image, processor, LIMITS)

    (minibatch,) = step_shards(processor.image_token_id, ranks)[rank].minibatches
    for stage in STAGES:
        model = load_policy(directory / "base", PolicyConfig(), 0)
        # A rank with too few passes gets a filler, an extra pass whose loss must not count. The
        # two policies differ, because only then would the loss of a filler change the result.
        frozen = load_policy(directory / "base", PolicyConfig(), 0).requires_grad_(False)
        for parameter in frozen.parameters():
            parameter.mul_(1.1)
        settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
        engine = zero.initialize(model, settings)
        objective = Objective(
            engine,
            frozen,
            collated,
            GrpoConfig(),
            ranks,
            # The vision towers of policy and reference differ, so they share no features.
            tower=SharedTower([], ""),
            blocked_ids=(),
            packed=False,
        )
        taken = zero.step(engine, objective.losses(minibatch, None, LossMetrics()), RATE)
        state = zero.full_state(engine)
        if rank == 0:
            torch.save((taken.norm, state), directory / f"{stage}-{ranks}.pt")
        if rank == ranks - 1:
            for parameter in frozen.parameters():
                parameter.fill_(math.nan)
        # The loss is NaN on the last rank only, and no rank takes the step.
        spoilt = zero.step(engine, objective.losses(minibatch, None, LossMetrics()), RATE)
        assert not spoilt.taken, f"rank {rank} has taken the step"


if __name__ == "__main__":
    rank, ranks, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with process_group(directory / f"meeting-{ranks}", rank, ranks):
        main(rank, ranks, directory)
