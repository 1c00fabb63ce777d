"""Keeps signals to a process group away from Ray's servers.

    shell --SIGTERM to the group--> awares serve --after the last answer, stops--> Ray's servers

Without this module, SIGTERM would end Ray's node manager before the command finishes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import utils


@contextmanager
def own_sessions() -> Iterator[None]:
    """Start each of Ray's servers in a Unix session of its own within the block.

    Ray has no option for this, so the block replaces a function that Ray calls in new processes.

    Example:
        with own_sessions():
            ray.init(address="local")
    """
    before = utils.set_kill_on_parent_death_linux

    def prepare() -> None:
        os.setsid()
        before()

    utils.set_kill_on_parent_death_linux = prepare
    try:
        yield
    finally:
        utils.set_kill_on_parent_death_linux = before
