"""Checks that all nodes run the same source files, and that these files come from one tree.

Without this check, a worker could import `awares` from an uploaded working directory and
`awares_platform` from the container image.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from awares_platform.store.errors import LaunchError


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The directories of the packages `awares` and `awares_platform`, as one process imports them.

    `digest` is a digest of the Python files in both directories.

    Example:
        SourceTree("/app/awares", "/app/platform/awares_platform", "9f2c...")
    """

    awares: str
    platform: str
    digest: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The directories in sys.path from which the process imports the two packages."""
        return tuple(
            dict.fromkeys((str(Path(self.awares).parent), str(Path(self.platform).parent)))
        )


def here() -> SourceTree:
    """Return the source tree of this process.

    Raises LaunchError if the two packages come from different trees.
    """
    awares, platform = _directory("awares"), _directory("awares_platform")
    if platform.parent not in (awares.parent, awares.parent / "platform"):
        raise LaunchError(
            f"awares comes from {awares} but awares_platform from {platform}: two source trees. "
            "Put both on PYTHONPATH from one (a clone's root and its platform/), or ship no "
            "working_dir where the project is installed"
        )
    return SourceTree(str(awares), str(platform), _digest(awares, platform))


def require_same(driver: SourceTree, worker: SourceTree, node: str) -> None:
    """Raise LaunchError if `worker` and `driver` have different source files."""
    if driver.digest != worker.digest:
        raise LaunchError(
            f"node {node} runs other sources ({worker.awares}, {worker.platform}) than the driver "
            f"({driver.awares}, {driver.platform}): build one image for all, or submit the job "
            "with --working-dir ."
        )


def _directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin, package
    return Path(spec.origin).resolve().parent


def _digest(*packages: Path) -> str:
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
