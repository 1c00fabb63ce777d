"""Injects faults into a running grpo job at random moments, and then checks the run.

    PYTHONPATH=.:platform python -m tests.faults.matrix --part 1 --results runs/faults
    PYTHONPATH=.:platform python -m tests.faults.matrix --table runs/faults > tests/faults/README.md

- Part 0 is a run without a fault.
- Each of the parts 1 to 4 has a quarter of the faults.
- Later parts have the faults that --repeat names.
- The script mounts a small disk to fill, and thus needs root.
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psutil

from awares_platform.config import PlatformConfig
from awares_platform.store import ObjectStore
from tests.benchmarks.local_store import local_store
from tests.faults.cluster import LABEL, cluster
from tests.faults.faults import MATRIX, MatrixFault
from tests.faults.job import GrpoJob
from tests.faults.outcome import Struck, check, portable, prepare, rewards
from tests.faults.strike import Strike
from tests.faults.table import table
from tests.integration.fault_proxy import proxy
from tests.processes import family, kill

PARTS, STEPS, APART, SEED, EVERY = 4, 2000, (3, 9), 0, 10
HANG_S, BUDGET_S, DISK_MIB, LEFT_S = 30.0, 120.0, 64, 60.0
ROOT, TOKEN = Path(__file__).parents[2], secrets.token_hex(32)


def settings(endpoint: str, disk: Path, part: int) -> PlatformConfig:
    """Return the setup of the job. Only its run name depends on the part."""
    return PlatformConfig.model_validate(
        {
            "run": {
                "name": f"faults-{part}",
                "directory": str(disk / "runs"),
                "hang_timeout_s": HANG_S,
            },
            "store": {
                "url": "s3://awares/faults",
                "endpoint": endpoint,
                "retry_budget_s": BUDGET_S,
            },
            "data": {
                "train_samples": 256,
                "test_samples": 1,
                "image_cache": str(disk / "images"),
            },
            "engine": {"kv_cache_gib": 0.25},
            "grpo": {
                "start": "base",
                "steps": STEPS,
                "groups_per_step": 8,
                "group_size": 4,
                "max_tokens": 8,
                "checkpoint_every": EVERY,
                "micro_batch": 16,
                "learning_rate": 1e-5,
                "learner_restarts": 20,
                "reward_workers": 1,
                "guards": {"disk_free_gib_below": 0.01, "call_rate": "off"},
                "rollout_selector": {LABEL: "spot"},
                "learner_selector": {LABEL: "spot"},
            },
        }
    )


def moments(part: int, repeated: Sequence[str] = ()) -> list[tuple[MatrixFault, int, float]]:
    """Return the faults of a part.

    Before each fault, the run waits for a number of new versions, and then for some seconds.

    `repeated` names the faults of a part after part 4.
    """
    chance = random.Random(SEED)
    faults = chance.sample(MATRIX, len(MATRIX))
    if part > PARTS:
        faults = [fault for fault in faults if fault.name in repeated]
    else:
        faults = faults[part - 1 :: PARTS] if part else []
    return [(fault, chance.randint(*APART), chance.random()) for fault in faults]


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """Mount a file system in memory, and yield its directory."""
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        size = f"size={DISK_MIB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", directory], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


def variables(address: str = "") -> dict[str, str]:
    """Return the environment variables of the cluster, or of a job on the cluster at `address`."""
    own = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }
    return {**os.environ, **own, **({"RAY_ADDRESS": address} if address else {})}


def run(part: int, results: Path, seconds: float, repeated: Sequence[str]) -> None:
    """Run a part for at most `seconds` seconds, check it, and write the outcome to `results`.

    The function also writes the lines of the job to `results`.
    """
    until = time.monotonic() + seconds
    with (
        tempfile.TemporaryDirectory(prefix="faults-store-") as scratch,
        small_disk() as disk,
        local_store(Path(scratch)) as server,
        proxy(server) as faults,
    ):
        config = settings(faults.store.config.endpoint or "", disk, part)
        store = ObjectStore(config.store.model_copy(update={"endpoint": server.config.endpoint}))
        prepare(config, store)
        with cluster(variables()) as nodes:
            struck: list[Struck] = []
            job = GrpoJob(config, store, variables(nodes.address), Path(scratch))
            try:
                strike = Strike(job, nodes, faults, disk, EVERY)
                strike_all(moments(part, repeated), job, strike, struck, until)
                job.process.terminate()
                status = job.process.wait(60)
            except (TimeoutError, subprocess.TimeoutExpired):
                status = None
            finally:
                kill(running(job))
        outcome = {
            "struck": [asdict(replace(one, told=portable(one.told))) for one in struck],
            "status": status,
            "checks": {
                name: portable(fault)
                for name, fault in check(config, store, job.said, status).items()
            },
            "rewards": rewards(config),
        }
        results.mkdir(parents=True, exist_ok=True)
        (results / f"part-{part}.json").write_text(json.dumps(outcome) + "\n")
        (results / f"part-{part}.log").write_text("\n".join(job.said))


def running(job: GrpoJob) -> set[psutil.Process]:
    """Return the job's driver and its descendants, or an empty set if the driver has ended."""
    return family(psutil.Process(job.process.pid)) if job.process.poll() is None else set()


def strike_all(
    planned: Sequence[tuple[MatrixFault, int, float]],
    job: GrpoJob,
    strike: Strike,
    struck: list[Struck],
    until: float,
) -> None:
    """Strike the job with each planned fault, and append the outcome of each fault to `struck`.

    Stop shortly before `until`, or after a fault that ends the job. Without faults, wait until
    `until`.
    """
    job.wait_for_version(2, 300)
    if not planned:
        time.sleep(max(0.0, until - time.monotonic()))
    for fault, versions, pause_s in planned:
        if time.monotonic() + fault.seconds + LEFT_S > until:
            break
        job.wait_for_version(job.version() + versions, 120)
        time.sleep(pause_s)
        struck.append(strike(fault))
        print(struck[-1], flush=True)
        if job.process.poll() is not None:
            break


def main() -> None:
    """Run a part of the matrix, or print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, help="0 to 4, or a later number")
    parser.add_argument("--repeat", nargs="*", default=(), help="the faults of a later part")
    parser.add_argument("--seconds", type=float, default=900.0, help="the time of the part")
    parser.add_argument("--results", type=Path, default=Path("runs/faults"))
    parser.add_argument("--table", type=Path, help="print the table of the results here")
    given = parser.parse_args()
    if given.table:
        print(table(given.table), end="")
    else:
        run(given.part, given.results, given.seconds, given.repeat)


if __name__ == "__main__":
    main()
