"""Runs all checks of the node on which this process runs."""

import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

from awares_platform.cli.doctor import machine
from awares_platform.cli.doctor.clock import CLOCK, check_clock
from awares_platform.cli.doctor.examine import caught
from awares_platform.cli.doctor.finding import Finding
from awares_platform.store import ObjectStore
from awares_platform.training.identity import cache_directory

Check = tuple[Callable[[], list[Finding]], str]
"""The function of a check, and the remedy to name if this function raises an error."""


def check_node(base: str, gpus: float, store: ObjectStore) -> list[Finding]:
    """Check GPUs, disks, shared memory and clock of this node.

    `base` is the setting `policy.base`. `gpus` is the number of GPUs that Ray gives this process.
    """
    node = platform.node()
    checks: dict[str, Check] = {
        machine.GPU: (
            lambda: machine.check_gpus(gpus, node),
            "Install a driver and an image that fit the GPU.",
        ),
        machine.DISK: (
            lambda: machine.check_disks(_places(), _policy_gib(base), node),
            "Let the process write to its cache, or set AWARES_CACHE.",
        ),
        machine.SHM: (
            lambda: machine.check_shared_memory(node),
            "Mount a tmpfs at /dev/shm.",
        ),
        CLOCK: (lambda: check_clock(store, node), "Check which server answers store.endpoint."),
    }
    return [
        finding for name, (work, remedy) in checks.items() for finding in caught(name, work, remedy)
    ]


def _places() -> dict[str, Path]:
    return {"cache": cache_directory(), "temporary directory": Path(tempfile.gettempdir())}


def _policy_gib(base: str) -> float | None:
    """Return the size of the policy `base` in GiB, or None if `base` is no directory here."""
    if base == "mini":
        from awares.mini import POLICY

        base = str(POLICY)
    return machine.directory_gib(Path(base).expanduser())
