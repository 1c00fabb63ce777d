"""Sets Python's garbage collector for a process that holds many groups."""

import gc

from awares_platform.config.grpo import GrpoConfig

_OBJECTS = 32
"""Maximum number of Python objects in an episode of two turns."""
_LEAST = 50_000
_MIDDLE = 2
_OLD = 10


def collect_rarely(settings: GrpoConfig) -> None:
    """Set the garbage collector's threshold above the number of objects in all groups together.

    Groups form no reference cycles, and frequent collector runs would double the time to unpickle
    and score a group.
    """
    batches = settings.staleness_bound + 3
    episodes = batches * settings.groups_per_step * settings.group_size
    gc.collect()
    gc.freeze()
    gc.set_threshold(max(_LEAST, episodes * _OBJECTS), _MIDDLE, _OLD)
