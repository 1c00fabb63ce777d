"""Joins the learner's ranks in a process group, and checks an all-reduce."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from awares_platform.cli.doctor.finding import Finding

ALL_REDUCE = "all-reduce"
REMEDY = (
    "Let the learner's pods reach each other on all ports, and name the network interface in "
    "NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME."
)
_ELEMENTS = {"nccl": 64 << 20, "gloo": 4 << 20}
"""The number of float32 elements that a measurement exchanges, by backend."""
_REPEATS = 3
LOWEST_NCCL_GB_PER_S = 1.0
"""The smallest bus bandwidth without a warning. GPUs of one node and RDMA networks are far above
this bandwidth, and TCP at 10 Gbit/s is close to it."""
FASTER = (
    "Find NCCL's path between the ranks with NCCL_DEBUG=INFO. Put the learner's ranks on one node, "
    "or give their pods the fast network."
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The result of one rank's all-reduces.

    `right` is true if every sum was right. `size` is the size of the tensor in bytes. `seconds` is
    the median duration of an all-reduce.

    Example:
        Exchange(right=True, size=16777216, seconds=0.02)
    """

    right: bool
    size: int
    seconds: float


def join(address: str, rank: int, ranks: int, backend: str) -> None:
    """Join a process group. Every rank must call this function. `address` is rank 0's `host:port`.

    The function also sets the environment variables that DeepSpeed reads.
    """
    import torch.distributed

    host, _, port = address.rpartition(":")
    os.environ.update(
        MASTER_ADDR=host,
        MASTER_PORT=port,
        RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
    )
    if backend == "nccl":
        torch.cuda.set_device(0)
    torch.distributed.init_process_group(
        backend,
        init_method=f"tcp://{address}",
        rank=rank,
        world_size=ranks,
    )


def exchange(backend: str, device: Any) -> Exchange:
    """Sum a tensor over all ranks three times, and check each sum.

    Every rank must call this function.
    """
    import torch
    import torch.distributed

    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    elements, times, right = _ELEMENTS[backend], [], True
    for _ in range(_REPEATS):
        tensor = torch.full((elements,), float(rank + 1), device=device)
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        right &= bool((tensor == ranks * (ranks + 1) / 2).all())
        times.append(time.perf_counter() - started)
    return Exchange(right, elements * 4, sorted(times)[_REPEATS // 2])


def judged(exchanges: Sequence[Exchange], backend: str) -> list[Finding]:
    """Return the finding on the exchanges of all ranks.

    The reported rate is NCCL's bus bandwidth: 2 (n - 1) / n * bytes / seconds for n ranks. The
    seconds are those of the slowest rank.
    """
    ranks, slowest = len(exchanges), max(one.seconds for one in exchanges)
    rate = 2 * (ranks - 1) / ranks * exchanges[0].size / slowest / 1e9
    metrics = {"ranks": ranks, "backend": backend, "seconds": slowest, "gb_per_s": rate}
    wrong = [rank for rank, one in enumerate(exchanges) if not one.right]
    if wrong:
        found = f"{backend} computed a wrong sum on the ranks {wrong}"
        remedy = "Update the driver and NCCL, or set NCCL_P2P_DISABLE=1 to find the faulty path."
        return [Finding(ALL_REDUCE, "fail", found, remedy, metrics=metrics)]
    speed = f"{rate:.2f} GB/s" if ranks > 1 else "no other rank to talk to"
    found = f"{backend} over {ranks} rank{'s' * (ranks > 1)}: {speed}"
    if backend == "nccl" and ranks > 1 and rate < LOWEST_NCCL_GB_PER_S:
        return [Finding(ALL_REDUCE, "warn", found, FASTER, metrics=metrics)]
    return [Finding(ALL_REDUCE, "pass", found, metrics=metrics)]
