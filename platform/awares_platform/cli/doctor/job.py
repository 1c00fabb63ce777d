"""Runs the checks of `awares doctor` in a session, and collects their findings.

The order of the checks is: run directory, nodes, each node, store, endpoints, all-reduce, trainer
and engine together, first update, second update, clean-up. The engine's node checks the store and
the endpoints. The first update is of the kind that the setup trains: an adapter or whole weights.
The second update is of the other kind.

A check that fails does not stop the others. A check is left out if it needs the result of a check
that has failed. All checks share one time limit, which includes neither the wait for nodes nor the
clean-up.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from awares_platform.cli.doctor import endpoints, loop, machine, placement, storage
from awares_platform.cli.doctor.diagnosis import Diagnosis, write
from awares_platform.cli.doctor.examine import Work
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.learner import LearnerRank
from awares_platform.cli.doctor.player import Player
from awares_platform.cli.doctor.visit import Visit
from awares_platform.config import PlatformConfig
from awares_platform.config.curate import CurateConfig
from awares_platform.config.store import StoreConfig
from awares_platform.runtime.progress import Progress
from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.training.source import pinned

log = logging.getLogger(__name__)
FILE = "doctor.json"
RUN_DIRECTORY = "run directory"
_UPLOAD_S = 5.0
_HERE_S = 5.0
"""The longest wait for nodes if the session starts Ray on this machine, where no node can join."""
_STOP_S = 5.0


def run(config: PlatformConfig, limit_s: float, wait_s: float, copy: Path | None = None) -> bool:
    """Run all checks, print and write the findings, and return whether a check has failed.

    `limit_s` limits all checks together, and `wait_s` the wait for nodes. `copy` is a further file
    for the findings.
    """
    diagnosis = diagnose(config, limit_s, wait_s)
    print(f"{diagnosis.table()}\n\n{diagnosis.remedies()}", flush=True)
    written = diagnosis.as_json()
    for path in filter(None, (config.run.directory / config.run.name / FILE, copy)):
        try:
            write(written, path)
            print(f"findings: {path}")
        except OSError as error:
            log.warning("the findings cannot be written to %s: %s", path, error.strerror)
    _upload(written, config.store, f"runs/{config.run.name}/{FILE}")
    return diagnosis.status == "fail"


def _upload(text: str, store: StoreConfig, key: str) -> None:
    """Copy the findings to the store. Log a warning if the store fails."""
    try:
        ObjectStore.from_config(store).hurried(_UPLOAD_S).put(key, text.encode())
    except StoreError as error:
        log.warning("the findings are not in the store: %s", error)


def diagnose(config: PlatformConfig, limit_s: float, wait_s: float) -> Diagnosis:
    """Run all checks, and return their findings."""
    started = time.monotonic()
    config = config.model_copy(update={"policy": pinned(config.policy)})
    prefix = f"probes/doctor-{uuid.uuid4().hex[:12]}"
    with Progress("doctor") as progress:
        visit = Visit(limit_s, progress)
        try:
            _examine_all(visit, config, storage.patient(config.store, prefix), wait_s)
        finally:
            visit.wait(
                storage.CLEAN, lambda: storage.clean(config.store, prefix), 30.0, storage.BY_HAND
            )
    findings = tuple(visit.findings)
    return Diagnosis(config.run.name, findings, time.monotonic() - started)


def _examine_all(visit: Visit, config: PlatformConfig, store: ObjectStore, wait_s: float) -> None:
    run_directory = {"run directory": config.run.directory / config.run.name}
    visit.run(
        RUN_DIRECTORY,
        lambda: machine.check_disks(run_directory, 0.0, "driver", RUN_DIRECTORY),
        "Set run.directory to a directory that can be written.",
    )
    wanted = placement.bundles(config.grpo)
    wait_s = wait_s if os.environ.get("RAY_ADDRESS") else min(wait_s, _HERE_S)
    with placement.requested(wanted) as group:
        nodes = visit.wait(
            placement.NODES,
            lambda: placement.check_nodes(group, wanted, wait_s),
            wait_s + 10.0,
            "Check `ray status` on the head.",
        )
        with _actors(config, wanted, group if nodes else None) as (ranks, player):
            stored = _check_surroundings(visit, config.curate, store, ranks, player)
            if nodes:
                loop.check_loop(
                    visit,
                    store if stored else None,
                    ranks,
                    player,
                    own=config.policy.lora_rank > 0,
                    gpu=config.grpo.learner_gpus > 0,
                )
            else:
                for check in loop.CHECKS:
                    visit.skip(check, "there are no nodes for it")


@contextmanager
def _actors(
    config: PlatformConfig, wanted: list[placement.Bundle], group: Any
) -> Iterator[tuple[list[Any], Any]]:
    """Start one actor for each learner rank and one for the engine, and kill them after the block.

    If `group` is None, no rank starts, and the engine's actor may run on any node.
    """
    count = config.grpo.learner_workers
    ranks: list[Any] = [
        ray.remote(**wanted[rank].options(group, rank))(LearnerRank).remote(config, rank, count)
        for rank in range(count if group else 0)
    ]
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 8}
    options |= wanted[count].options(group, count) if group else {}
    player: Any = ray.remote(**options)(Player).remote(config)
    try:
        yield ranks, player
    finally:
        with suppress(RayError):
            ray.get(player.stop.remote(), timeout=_STOP_S)
        for actor in (*ranks, player):
            ray.kill(actor)


def _check_surroundings(
    visit: Visit, curate: CurateConfig, store: ObjectStore, ranks: list[Any], player: Any
) -> bool:
    """Check the nodes, the store and the endpoints. Return whether the store can be used."""
    visit.run(
        "node",
        lambda: [one for each in loop.call_all([*ranks, player], "node", store) for one in each],
        "Check that the node's actors start; their logs are in Ray's directory.",
    )

    def call(check: Callable[..., list[Finding]], argument: Any) -> Work:
        return lambda: ray.get(player.call.remote(check, argument))

    usable = visit.run(storage.ROUND_TRIP, call(storage.round_trip, store), storage.REMEDY, 30.0)
    if usable:
        conditions = call(storage.conditional_writes, store)
        usable = visit.run(storage.CONDITIONS, conditions, storage.TWO_WRITERS, 30.0)
        visit.run(storage.RATES, call(storage.rates, store), storage.FASTER, 30.0)
    else:
        for check in (storage.CONDITIONS, storage.RATES):
            visit.skip(check, "the store cannot be used")
    endpoints.check_endpoints(visit, curate, lambda check, texts: call(check, texts)())
    return usable
