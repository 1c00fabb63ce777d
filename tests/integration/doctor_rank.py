"""Runs one rank that loads a policy as `awares doctor` does with ZeRO-3, and measures its memory.

Usage: `python -m tests.integration.doctor_rank <rank> <ranks> <directory> <out>`

Each rank writes its measurements to <out>/<rank>.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from awares_platform.cli.doctor.trainee import Trainee
from awares_platform.config import PlatformConfig
from tests.integration.loading_rank import peak
from tests.integration.process_group import process_group

CONFIG = PlatformConfig.model_validate(
    {"policy": {"lora_rank": 4}, "grpo": {"zero_stage": 3}, "engine": {"dtype": "float32"}}
)


def main(rank: int, ranks: int, directory: Path, out: Path) -> None:
    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    # Load a small policy first, because the first load also imports modules, which take memory.
    Trainee(CONFIG, directory / "small-base", torch.device("cpu")).load(adapter=True)
    trainee = Trainee(CONFIG, directory / "base", torch.device("cpu"))
    with peak(measured, "load"):
        measured["trained"] = trainee.load(adapter=True)
    measured["logprobs"] = trainee._logprobs()
    (out / f"{rank}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    with process_group(Path(sys.argv[4]) / "meeting", int(sys.argv[1]), int(sys.argv[2])):
        main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
