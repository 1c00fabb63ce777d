"""What images hold, as far as the simulator stands in for them: the project at /opt/awares, its packages, and SeaweedFS's `weed`.

A container's image itself is ignored. /opt/awares becomes a directory of links to this checkout, so that a job may write beside them.
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
    """Make a pod's /opt/awares below `root`."""
    place = root / "opt"
    place.mkdir(exist_ok=True)
    for name in _LINKED:
        (place / name).symlink_to(ROOT / name)
    return place


def variables() -> dict[str, str]:
    """What the image sets: where programs and packages are. Everything else a container gets from its pod alone."""
    programs = os.pathsep.join(
        (str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin")
    )
    return {"PATH": programs, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "LANG": "C.UTF-8"}


def entrypoint(image: str) -> list[str]:
    """The command of an image that a container relies on: SeaweedFS's, ours has none."""
    return ["weed"] if "seaweedfs" in image else []


def weed_ports(command: list[str], free: Callable[[], int]) -> dict[str, int]:
    """A free port for each of SeaweedFS's parts: it refuses a port that anybody on the machine has, on whatever address."""
    if not command or Path(command[0]).name != "weed":
        return {}
    return {flag: free() for flag in _WEED_PORTS}


def declared(command: list[str], flag: str) -> int:
    """The port that the command, or else SeaweedFS, gives a part."""
    given = [
        argument.partition("=")[2]
        for argument in command
        if argument.lstrip("-").startswith(f"{flag}=")
    ]
    return int(given[0]) if given else _WEED_PORTS[flag]


def arguments(command: list[str], ports: Mapping[str, int]) -> list[str]:
    """The command as it must run here: SeaweedFS on the looked-up ports of its pod's address (its default is the machine's)."""
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
