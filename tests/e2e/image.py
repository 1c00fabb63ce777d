"""What images hold, as far as the simulator stands in for them: the project at /opt/awares, its packages, and SeaweedFS's `weed`.

A container's image itself is ignored. /opt/awares becomes a directory of links to this checkout, so that a job may write beside them.
"""

import os
import sys
from pathlib import Path

from tests.e2e.helm import ROOT

HOME = "/opt/awares"
_LINKED = ("awares", "jobs", "platform")
_WEED_DEFAULTS = ("-master.telemetry=false", "-ip=0.0.0.0", "-ip.bind=0.0.0.0")


def lay_out(root: Path) -> Path:
    """Make a pod's /opt/awares below `root`."""
    place = root / "opt"
    place.mkdir(exist_ok=True)
    for name in _LINKED:
        (place / name).symlink_to(ROOT / name)
    return place


def variables() -> dict[str, str]:
    """What the image sets: where programs and packages are. Everything else a container gets from its pod alone."""
    programs = os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"))
    return {"PATH": programs, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "LANG": "C.UTF-8"}


def entrypoint(image: str) -> list[str]:
    """The command of an image that a container relies on: SeaweedFS's, ours has none."""
    return ["weed"] if "seaweedfs" in image else []


def arguments(command: list[str]) -> list[str]:
    """The command as it must run here: SeaweedFS binds its pod's address (its default is the machine's), and reports no usage."""
    if not command or Path(command[0]).name != "weed":
        return command
    given = {argument.partition("=")[0].lstrip("-") for argument in command}
    added = [default for default in _WEED_DEFAULTS if default.partition("=")[0].lstrip("-") not in given]
    return ["weed", *command[1:2], *(default for default in added if len(command) > 1 and command[1] in ("mini", "server")), *command[2:]]
