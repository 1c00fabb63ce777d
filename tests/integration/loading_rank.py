"""Runs one rank that loads a policy, trains it, and resumes from a checkpoint, with ZeRO-3.

Usage: `python -m tests.integration.loading_rank <rank> <ranks> <directory> <out> <base> <lora rank>
<dtype> <family> <whole|partitioned>`

With `partitioned`, a rank loads only its share of the weights, and with `whole` all weights. Each
rank writes its measurements to <out>/<rank>.json. Rank 0 also writes the weights to <out>/before.pt
and <out>/after.pt.
"""

import copy
import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.grpo.reference import frozen_reference
from awares_platform.training import shards, zero
from awares_platform.training.policy import load_policy
from tests.integration.process_group import process_group

RATE = 1e-3


def held() -> int:
    """Return this process's resident memory in bytes, without memory-mapped files."""
    status = Path("/proc/self/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


@contextmanager
def peak(measured: dict[str, Any], name: str) -> Iterator[None]:
    """Write the largest growth of this process's memory within the block to `measured[name]`."""
    gc.collect()
    before, highest, ended = held(), [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            highest[0] = max(highest[0], held() - before)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    measured[name] = highest[0]


def loss(model: Any, rank: int, step: int) -> Tensor:
    ids_BT = torch.randint(
        20, 60, (2, 6), generator=torch.Generator().manual_seed(10 * step + rank)
    )
    logprobs_BTV = model(input_ids=ids_BT).logits.float().log_softmax(-1)
    return -logprobs_BTV[:, :-1].gather(2, ids_BT[:, 1:, None]).mean()


def run(
    rank: int, directory: Path, out: Path, base: str, policy: PolicyConfig, partitioned: bool
) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    grpo = GrpoConfig(zero_stage=3, learning_rate=RATE)
    settings = zero.settings_of(grpo, policy.dtype)

    def load(name: str = base) -> Any:
        return load_policy(directory / name, policy, 0, partitioned=partitioned)

    def freeze(model: Any, name: str = base) -> Any:
        if partitioned or policy.lora_rank:
            return frozen_reference(model, lambda: load(name), grpo, policy)
        return copy.deepcopy(model).requires_grad_(False).eval()

    # Load a small policy first, because the first load and the first DeepSpeed engine also import
    # modules, which take memory.
    small = f"small-{base}"
    freeze(load(small), small)
    with peak(measured, "load"):
        model = load()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    measured["buffers"] = {
        name: [str(buffer.dtype), buffer.double().flatten().tolist()]
        for name, buffer in buffers.items()
    }
    with peak(measured, "reference"):
        reference = freeze(model)
    engine = zero.initialize(model, settings)
    before = zero.full_state(engine)
    if reference is not None:
        with torch.no_grad():
            measured["reference_loss"] = loss(reference, rank, 0).item()
    measured["losses"] = []

    def train(engine: Any, step: int) -> None:
        value = loss(engine, rank, step)
        measured["losses"].append(value.item())
        zero.step(engine, [value], RATE)

    train(engine, 0)
    saved = out / "checkpoint"
    saved.mkdir(exist_ok=True)
    shards.write(engine, saved)
    torch.distributed.barrier()
    train(engine, 1)
    after = zero.full_state(engine)
    resumed = zero.initialize(load(), settings)
    shards.read(resumed, saved)
    train(resumed, 1)
    again = zero.full_state(resumed)
    if reference is not None:
        with torch.no_grad():
            measured["reference_loss_later"] = loss(reference, rank, 0).item()
    if rank == 0:
        measured["resumes"] = all(torch.equal(after[name], again[name]) for name in after)
        torch.save({**before, **buffers}, out / "before.pt")
        torch.save(after, out / "after.pt")
    return measured


def main(rank: int, ranks: int, directory: Path, out: Path, base: str, settings: list[str]) -> None:
    torch.set_num_threads(1)
    zero.prepare_process(gpu=False)
    lora_rank, dtype, family, mode = settings
    policy = PolicyConfig.model_validate(
        {
            "base": str(directory / base),
            "lora_rank": int(lora_rank),
            "dtype": dtype,
            "family": family,
        }
    )
    measured = run(rank, directory, out, base, policy, mode == "partitioned")
    (out / f"{rank}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    with process_group(Path(sys.argv[4]) / "meeting", int(sys.argv[1]), int(sys.argv[2])):
        main(
            int(sys.argv[1]),
            int(sys.argv[2]),
            Path(sys.argv[3]),
            Path(sys.argv[4]),
            sys.argv[5],
            sys.argv[6:],
        )
