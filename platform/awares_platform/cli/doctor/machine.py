"""Checks the GPUs, the disks and the shared memory of one node."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from awares_platform.cli.doctor.finding import Finding

GPU, DISK, SHM = "GPU", "disk", "shared memory"
GIB = 1 << 30
SHM_FAIL_GIB, SHM_WARN_GIB = 0.2, 1.0
"""The check fails if the size or the free part of shared memory is below the first number of GiB.
It warns if the size is below the second number."""
DISK_FAIL_GIB, DISK_UNKNOWN_GIB = 1.0, 50.0
_POLICY_COPIES = 3
"""A node may hold the base policy, an exported policy and a checkpoint at the same time."""
_WRITTEN = 4 << 20
_BUSY = 0.1
"""The share of a GPU's memory that other processes may use without a warning."""


def check_gpus(wanted: float, node: str) -> list[Finding]:
    """Check the GPUs that Ray gives to this process. `wanted` is the expected number of GPUs."""
    if not wanted:
        return [Finding(GPU, "skip", "the setup uses no GPU", metrics={"node": node})]
    import torch

    metrics: dict[str, Any] = {"node": node, "driver": _driver(), "cuda": torch.version.cuda}
    if not torch.cuda.is_available() or torch.cuda.device_count() < wanted:
        found = (
            f"torch {torch.__version__} sees {torch.cuda.device_count()} of {wanted:g} GPUs "
            f"(driver {metrics['driver']}, CUDA of torch {metrics['cuda']})"
        )
        remedy = "Use the image for GPUs, and install a driver that supports this version of CUDA."
        return [Finding(GPU, "fail", found, remedy, metrics=metrics)]
    gpus = [_gpu(index) for index in range(torch.cuda.device_count())]
    metrics["gpus"] = gpus
    names = {f"{gpu['name']}, {gpu['memory_gib']:.0f} GiB" for gpu in gpus}
    found = f"{len(gpus)} x {' / '.join(sorted(names))}, driver {metrics['driver']}"
    busy = [gpu for gpu in gpus if gpu["free_gib"] < (1 - _BUSY) * gpu["memory_gib"]]
    if busy:
        free = min(gpu["free_gib"] for gpu in busy)
        remedy = "Stop the other processes on this GPU, or let Ray reserve whole GPUs."
        found = f"{found}; only {free:.0f} GiB of one GPU are free"
        return [Finding(GPU, "warn", found, remedy, metrics=metrics)]
    return [Finding(GPU, "pass", found, metrics=metrics)]


def _gpu(index: int) -> dict[str, Any]:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    name = torch.cuda.get_device_name(index)
    return {"name": name, "memory_gib": total / GIB, "free_gib": free / GIB}


def _driver() -> str:
    """Return the version of NVIDIA's kernel driver, or "unknown"."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8", "replace")
    except OSError:
        return "unknown"
    found = re.search(r"Kernel Module\D*(\d+(?:\.\d+)+)", text)
    return found[1] if found else "unknown"


def directory_gib(directory: Path) -> float | None:
    """Return the size of a directory's files in GiB, or None if there is no such directory."""
    if not directory.is_dir():
        return None
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / GIB


def check_disks(
    places: dict[str, Path], policy: float | None, node: str, check: str = DISK
) -> list[Finding]:
    """Write a file to each directory, and compare the free space with the size of the policy.

    `places` maps a purpose, such as "cache", to a directory. `policy` is the policy's size in GiB,
    or None.
    """
    free: dict[str, float] = {}
    metrics: dict[str, Any] = {"node": node, "free_gib": free}
    for name, place in places.items():
        try:
            free[name] = _free_gib(place)
        except OSError as error:
            found = f"the {name} {place} cannot be written: {error.strerror}"
            remedy = f"Free space, or let the user of the process write to {place}."
            return [Finding(check, "fail", found, remedy, metrics=metrics)]
    name = min(free, key=free.__getitem__)
    wanted = DISK_UNKNOWN_GIB if policy is None else DISK_FAIL_GIB + _POLICY_COPIES * policy
    found = f"{free[name]:.1f} GiB are free in the {name} {places[name]}"
    if free[name] >= wanted:
        return [Finding(check, "pass", found, metrics=metrics)]
    status = "fail" if free[name] < DISK_FAIL_GIB else "warn"
    remedy = f"Give {places[name]} {wanted:.0f} GiB, for the policy, its export and a checkpoint."
    return [Finding(check, status, found, remedy, metrics=metrics)]


def _free_gib(place: Path) -> float:
    """Return the free space in GiB after a test write. Raises OSError if the write fails."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place, prefix="awares-doctor-") as file:
        file.write(os.urandom(_WRITTEN))
        file.flush()
        os.fsync(file.fileno())
        return shutil.disk_usage(place).free / GIB


def check_shared_memory(node: str, place: Path = Path("/dev/shm")) -> list[Finding]:
    """Check the size and the free part of /dev/shm, which Ray's object store and NCCL use."""
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        found, remedy = f"{place}: {error.strerror}", f"Mount a tmpfs at {place}."
        return [Finding(SHM, "fail", found, remedy, metrics={"node": node})]
    total, free = usage.total / GIB, usage.free / GIB
    metrics = {"node": node, "total_gib": total, "free_gib": free}
    found = f"{place} has {total:.1f} GiB, of which {free:.1f} are free"
    if total >= SHM_FAIL_GIB > free:
        remedy = f"Stop the process that fills {place}, or delete what an earlier one left there."
        return [Finding(SHM, "fail", found, remedy, metrics=metrics)]
    if total >= SHM_WARN_GIB:
        return [Finding(SHM, "pass", found, metrics=metrics)]
    status = "fail" if total < SHM_FAIL_GIB else "warn"
    remedy = "Raise shm of the node's group in the chart, or start the container with --shm-size."
    return [Finding(SHM, status, found, remedy, metrics=metrics)]
