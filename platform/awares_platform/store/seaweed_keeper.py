"""Runs SeaweedFS until its last user is gone.

seaweed.py runs this file as a script in a process of its own. The script starts the server, and
writes the server's process id to <directory>/lock. It stops the server as soon as it gets the
exclusive lock on <directory>/users. At the end, it deletes the server's keys, and the Unix sockets
that the server leaves in /tmp.

The script imports only the standard library, so that it starts fast and stays small. If the script
is killed, the server gets SIGTERM. If the server ends, the script ends.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

STOP_S = 5.0
"""A server that has not stopped after this number of seconds is killed."""
_PR_SET_PDEATHSIG = 1


def keep(directory: Path, ports: list[int], command: list[str]) -> None:
    """Run the server until it ends, until its last user is gone, or until SIGTERM arrives."""
    server = _start(command)
    (directory / "lock").write_text(str(server.pid), "ascii")
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_stop_without_users, args=(directory, server), daemon=True).start()
    server.wait()
    for number in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
            path.unlink(missing_ok=True)
    (directory / "keys.json").unlink(missing_ok=True)


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start the server, which inherits the lock, in a Unix session that Ctrl-C does not reach."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        command, close_fds=False, start_new_session=True, preexec_fn=die_with_parent
    )


def _stop_without_users(directory: Path, server: "subprocess.Popen[bytes]") -> None:
    with (directory / "users").open("a+b") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
        # Keep the exclusive lock until this process ends, so that no new user joins the server.
        threading.Event().wait()


if __name__ == "__main__":
    place, numbers, *rest = sys.argv[1:]
    keep(Path(place), [int(number) for number in numbers.split(",")], rest)
