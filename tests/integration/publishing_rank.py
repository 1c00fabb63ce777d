"""Runs one rank of a small learner, which trains and publishes weights at ZeRO stages 1, 2 and 3.

Usage: `python -m tests.integration.publishing_rank <rank> <ranks> <setup.json>`

Rank 0 writes the expected weights of each version to <run.directory>/<stage>-<version>.pt.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from awares_platform.config import PlatformConfig
from awares_platform.store import ObjectStore
from awares_platform.training import zero
from awares_platform.training.policy import load_policy
from awares_platform.weights import Publisher
from tests.integration.process_group import process_group

STAGES = (1, 2, 3)
STEPS = 3
RATE = 1e-5


def agree(value: Any) -> Any:
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def train(rank: int, ranks: int, stage: int, config: PlatformConfig) -> None:
    model = load_policy(Path(config.policy.base), config.policy, 0)
    settings = zero.ZeroSettings(stage, "float32", RATE)  # type: ignore[arg-type]
    engine = zero.initialize(model, settings)
    publisher = Publisher(
        ObjectStore.from_config(config.store),
        f"{config.run.name}-{stage}",
        rank=rank,
        ranks=ranks,
        agree=agree,
    )
    for step in range(STEPS):
        version = publisher.begin(zero.owned(engine, torch.bfloat16), step=step)
        whole = zero.full_state(engine)
        if rank == 0:
            state = {name: tensor.to(torch.bfloat16) for name, tensor in whole.items()}
            torch.save(state, config.run.directory / f"{stage}-{version}.pt")
        ids_BT = torch.randint(
            20, 60, (3, 7), generator=torch.Generator().manual_seed(10 * step + rank)
        )
        logprobs_BTV = engine(input_ids=ids_BT).logits.float().log_softmax(-1)
        zero.step(engine, [-logprobs_BTV[:, :-1].gather(2, ids_BT[:, 1:, None]).mean()], RATE)
    publisher.wait()


def main(rank: int, ranks: int, setup: Path) -> None:
    torch.set_num_threads(1)
    config = PlatformConfig.model_validate_json(setup.read_text())
    with process_group(config.run.directory / "meeting", rank, ranks):
        for stage in STAGES:
            train(rank, ranks, stage, config)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
