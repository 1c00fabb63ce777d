"""Runs one rank of a trainer whose number of ranks does not divide the number of sequences.

Usage: `python uneven_rank.py <rank> <ranks> <directory>`

The directory holds the policy `base`. Rank 0 writes the gradient norm and the weights after one
step to <directory>/<ZeRO stage>-<ranks>.pt.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from awares.passes import PassBudget, deal
from awares_platform.config.policy import PolicyConfig
from awares_platform.training import zero
from awares_platform.training.policy import load_policy

STAGES = (2, 3)
LENGTHS = (9, 8, 8, 7, 6, 6, 5, 4)
RATE = 1e-3


def losses(model: Any, hands: list[list[tuple[int, ...]]], rank: int) -> Iterator[Tensor]:
    """Yield the loss of each pass of this rank, like the learner. Missing passes are fillers."""
    passes = [*hands[rank], *[(-1,)] * (len(hands[0]) - len(hands[rank]))]
    for rows in passes:
        total = torch.zeros(())
        for row in rows:
            seed = torch.Generator().manual_seed(row % len(LENGTHS))
            ids_BT = torch.randint(20, 60, (1, LENGTHS[row]), generator=seed)
            logprobs_BTV = model(input_ids=ids_BT).logits.float().log_softmax(-1)
            total = total - logprobs_BTV[:, :-1].gather(2, ids_BT[:, 1:, None]).mean()
        yield total / len(LENGTHS) * (len(hands) if rows != (-1,) else 0.0)


def main(rank: int, ranks: int, directory: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{directory}/meeting-{ranks}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    hands = deal(LENGTHS, PassBudget(rows=1), ranks)
    for stage in STAGES:
        model = load_policy(directory / "base", PolicyConfig(), 0)
        settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
        engine = zero.initialize(model, settings)
        norm = zero.step(engine, losses(engine, hands, rank), RATE)
        state = zero.full_state(engine)
        if rank == 0:
            torch.save((norm, state), directory / f"{stage}-{ranks}.pt")
    torch.distributed.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
