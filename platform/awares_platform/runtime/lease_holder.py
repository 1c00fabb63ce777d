"""Describes the process that holds a lease, and finds out whether this process is gone."""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

_STATE, _START = 0, 19
"""Indices of a process's state and start time in /proc/<pid>/stat.

The indices count only the fields after the command's name.
"""


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """The process of the job that holds a lease.

    Example:
        LeaseHolder(
            "9f2c...", "grpo", "node-3", 4242, "2026-11-29 21:10:05 UTC", "6a1f/pid:[4026]/0", 77
        )
    """

    token: str
    """A random text, unique to each request for a lease."""
    job: str
    host: str
    pid: int
    since: str
    """The time of the request for the lease, as text."""
    place: str
    """The boot of the machine, the PID namespace and the user, within which `pid` is comparable."""
    born: int
    """The start time of the process, in ticks since the boot."""

    @classmethod
    def here(cls, job: str) -> Self:
        """Return this process as a new holder."""
        pid, place = os.getpid(), _place()
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        found = _status(pid)
        born = found[1] if found else 0
        return cls(uuid4().hex, job, socket.gethostname(), pid, since, place, born)

    def __str__(self) -> str:
        return f"`awares {self.job}`, process {self.pid} on {self.host}, since {self.since}"

    def to_bytes(self, beat: int) -> bytes:
        """Return the content of the lease at the beat number `beat`."""
        return json.dumps({**asdict(self), "beat": beat}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Parse the content of a lease. Return None if it is damaged.

        Some S3 servers leave an empty object if a writer is killed during a write.
        """
        try:
            fields = json.loads(data)
            fields.pop("beat")
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def is_gone(self) -> bool:
        """Return whether the holder has the same `place` as this process, and has ended."""
        if not self.place or self.place != _place():
            return False
        found = _status(self.pid)
        return found is None or found[0] in "ZX" or found[1] != self.born


def _place() -> str:
    """Return the value of `LeaseHolder.place` for this process, or "" if this is not Linux."""
    if sys.platform != "linux":
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}/{os.getuid()}"


def _status(pid: int) -> tuple[str, int] | None:
    """Return the state and the start time of a process, or None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[_STATE], int(fields[_START])
