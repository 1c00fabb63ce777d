"""Runs one rank of trainings that stop and resume with fewer ranks.

Usage: `python -m tests.integration.resized_rank <rank> <ranks> <directory> <part>`

<part> is 0, 1 or 2. A later part starts from the checkpoint of the part before. With -1, the
process trains all parts at once, without a checkpoint.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from awares_platform.config.policy import PolicyConfig
from awares_platform.training import shards, zero
from awares_platform.training.policy import load_policy
from tests.integration.process_group import process_group

CHAINS = {
    "zero2": ((2, 2, 2), "float32", 0),
    "zero3": ((3, 3, 3), "float32", 0),
    "mixed": ((1, 3, 2), "bfloat16", 0),
    "adapter": ((2, 3, 1), "float32", 4),
}
"""The ZeRO stage of each part, the data type of the weights, and the rank of the adapter."""
RANKS = (4, 2, 1)
"""The number of ranks of each part."""
STEPS, ROWS, RATE = 2, 8, 3e-3


def loss(model: Any, step: int, rank: int, ranks: int) -> Tensor:
    """Return the mean negative logprob of this rank's share of the step's batch."""
    every_BT = torch.randint(20, 60, (ROWS, 7), generator=torch.Generator().manual_seed(step))
    ids_BT = every_BT[rank::ranks]
    logprobs_BTV = model(input_ids=ids_BT).logits.float().log_softmax(-1)
    return -logprobs_BTV[:, :-1].gather(2, ids_BT[:, 1:, None]).mean()


def main(rank: int, ranks: int, directory: Path, part: int) -> None:
    torch.set_num_threads(1)
    for name, (stages, dtype, lora_rank) in CHAINS.items():
        policy = PolicyConfig.model_validate({"dtype": dtype, "lora_rank": lora_rank})
        settings = zero.ZeroSettings(stages[part], dtype, RATE)  # type: ignore[arg-type]
        engine = zero.initialize(load_policy(directory / "base", policy, 0), settings)
        if part > 0:
            shards.read(engine, directory / f"{name}-{part - 1}")
        steps = range(STEPS * len(RANKS)) if part < 0 else range(part * STEPS, part * STEPS + STEPS)
        for step in steps:
            value = loss(engine, step, rank, ranks)
            whole = value.detach().clone()
            torch.distributed.all_reduce(whole)
            zero.step(engine, [value], RATE)
            if rank == 0:
                with (directory / f"{name}-{part < 0}.jsonl").open("a") as file:
                    file.write(json.dumps(whole.item() / ranks) + "\n")
        saved = directory / f"{name}-{part}"
        saved.mkdir(exist_ok=True)
        shards.write(engine, saved)
        torch.distributed.barrier()


if __name__ == "__main__":
    rank, ranks, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with process_group(directory / f"meeting-{sys.argv[4]}", rank, ranks):
        main(rank, ranks, directory, int(sys.argv[4]))
