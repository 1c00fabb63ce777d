"""Runs one rank of the doctor's trainer with ZeRO-3, and measures the memory of its load.

Usage: `python doctor_rank.py <rank> <ranks> <directory> <out>`

The policy is in <directory>/base, and a small policy of the same family in <directory>/small-base.
Each rank writes its measurements to <out>/<rank>.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from loading_rank import peak

from awares_platform.config import PlatformConfig
from awares_platform.doctor.trainee import Trainee

CONFIG = PlatformConfig.model_validate(
    {"policy": {"lora_rank": 4}, "grpo": {"zero_stage": 3}, "engine": {"dtype": "float32"}}
)


def main(rank: int, ranks: int, directory: Path, out: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{out}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    measured: dict[str, Any] = {}
    # The first load imports modules. Load a small policy first, so that the measurement leaves out
    # the memory of these modules.
    Trainee(CONFIG, directory / "small-base", torch.device("cpu")).load(adapter=True)
    trainee = Trainee(CONFIG, directory / "base", torch.device("cpu"))
    with peak(measured, "load"):
        measured["trained"] = trainee.load(adapter=True)
    measured["logprobs"] = trainee._logprobs()
    (out / f"{rank}.json").write_text(json.dumps(measured))
    torch.distributed.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
