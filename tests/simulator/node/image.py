"""Replaces the content of container images: /opt/awares, Python packages, and SeaweedFS's `weed`.

In each pod, a directory of links to this checkout stands for /opt/awares. Jobs can write further
files into the directory.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOME = "/opt/awares"
_LINKED = ("awares", "jobs", "platform")
_WEED_DEFAULTS = {"master.telemetry": "false", "ip": "0.0.0.0", "ip.bind": "0.0.0.0"}
_WEED_PORTS = {
    "s3.port": 8333,
    "master.port": 9333,
    "volume.port": 9340,
    "filer.port": 8888,
    "admin.port": 23646,
}


def lay_out(root: Path) -> Path:
    """Create a directory below `root` that replaces /opt/awares in a pod, and return its path."""
    place = root / "opt"
    place.mkdir(exist_ok=True)
    for name in _LINKED:
        (place / name).symlink_to(ROOT / name)
    return place


def variables() -> dict[str, str]:
    """Return the environment variables that an image sets.

    They are the paths of programs and of Python packages, and the locale. All other variables come
    from the pod.
    """
    programs = os.pathsep.join(
        (str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin")
    )
    return {"PATH": programs, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "LANG": "C.UTF-8"}


def entrypoint(image: str) -> list[str]:
    """Return the entrypoint of an image: ["weed"] for SeaweedFS, or [] for all other images."""
    return ["weed"] if "seaweedfs" in image else []


def weed_ports(command: list[str], free: Callable[[], int]) -> dict[str, int]:
    """Map each port flag of SeaweedFS to a free port, or return {} if `command` is not `weed`.

    SeaweedFS refuses a port that is not free on all addresses of the machine.
    """
    if not command or Path(command[0]).name != "weed":
        return {}
    return {flag: free() for flag in _WEED_PORTS}


def declared(command: list[str], flag: str) -> int:
    """Return the port that the command sets with `flag`, or SeaweedFS's default port."""
    given = [
        argument.partition("=")[2]
        for argument in command
        if argument.lstrip("-").startswith(f"{flag}=")
    ]
    return int(given[0]) if given else _WEED_PORTS[flag]


def arguments(command: list[str], ports: Mapping[str, int]) -> list[str]:
    """Return the command as it runs on this machine. Only a SeaweedFS command changes.

    Its port flags get the values of `ports`. RunningPod later replaces the address 0.0.0.0 with the
    pod's address.
    """
    if not ports:
        return command
    kept = [
        argument for argument in command[2:] if argument.lstrip("-").partition("=")[0] not in ports
    ]
    given = {argument.lstrip("-").partition("=")[0] for argument in kept}
    added = [f"-{flag}={value}" for flag, value in _WEED_DEFAULTS.items() if flag not in given]
    return [
        "weed",
        *command[1:2],
        *kept,
        *added,
        *(f"-{flag}={port}" for flag, port in ports.items()),
    ]
