"""Lets rollout actors wait for room in the buffer, and wakes only those that get a prompt.

    Line.prompt(index) --> waits, by the version of the actor's weights --> Prompt
                                  ^
    advance() --------------------+ issues prompts while the buffer has room

The actors with the newest weights come first, because the buffer lets them start the most groups.
When the learner takes a batch, the buffer gets room for many prompts. Starting 1,600 groups at once
would block the event loop for 0.15 seconds, so other tasks run after every 32 prompts.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice

from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import Prompt

Waiter = asyncio.Future[Prompt]
_AT_ONCE = 32
"""The number of prompts that are issued before other tasks run."""


class Line:
    """The actors that wait for a prompt of `buffer`. Each actor waits at most once at a time.

    No prompt is issued before `open` is called.

    Example:
        line = Line(buffer)
        line.open()
        line.loaded(0, version=3)
        prompt = await line.prompt(0)
    """

    def __init__(self, buffer: EpisodeBuffer) -> None:
        self._buffer = buffer
        self._opened = False
        # The version of each actor's weights, by the actor's index.
        self._versions: dict[int, int] = {}
        # The waiting actors, by the version of their weights, in the order of their arrival.
        self._places: dict[int, dict[int, Waiter]] = {}
        # The call that issues the next prompts, if it has not run yet.
        self._next: asyncio.Handle | None = None

    def open(self) -> None:
        """Allow the first prompts, and issue them to the actors that wait."""
        self._opened = True
        self.advance()

    def close(self) -> None:
        """Issue no further prompts until the next call of `open`."""
        self._opened = False

    def loaded(self, index: int, version: int) -> None:
        """Record that the actor `index` has loaded `version`.

        If the actor waits, it now waits behind the other actors with this version. The method then
        issues prompts for as long as the buffer has room.
        """
        place = self._leave(index)
        self._versions[index] = version
        if place is not None:
            self._places.setdefault(version, {})[index] = place
            self.advance()

    def gone(self, index: int) -> None:
        """Forget the version of an actor that is lost."""
        self._versions.pop(index, None)

    async def prompt(self, index: int) -> Prompt:
        """Wait until the buffer has room for the actor `index`, and return a prompt for it."""
        place: Waiter = asyncio.get_running_loop().create_future()
        self._places.setdefault(self.version(index), {})[index] = place
        self.advance()
        try:
            return await place
        except asyncio.CancelledError:
            self._leave(index)
            if place.done() and not place.cancelled():
                # The actor was lost after it got this prompt. Another actor must get the prompt.
                self._buffer.reissue(place.result())
                self.advance()
            raise

    def advance(self) -> None:
        """Issue prompts to waiting actors for as long as the buffer has room for them.

        After _AT_ONCE prompts, the event loop first runs other tasks.
        """
        if not self._opened or self._next is not None:
            return
        waiting = self._served()
        if sum(1 for _ in islice(waiting, _AT_ONCE)) == _AT_ONCE:
            self._next = asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next = None
        self.advance()

    def _served(self) -> Iterator[Waiter]:
        """Issue prompts to waiting actors while there is room, and yield each actor's future."""
        for version in sorted(self._places, reverse=True):
            places = self._places[version]
            while places and self._buffer.room(version) > 0:
                place = places.pop(next(iter(places)))
                if not place.done():
                    place.set_result(self._buffer.issue())
                    yield place
            if not places:
                del self._places[version]

    def version(self, index: int) -> int:
        """Return the version of the actor's weights, or -1 before its first load."""
        return self._versions.get(index, -1)

    def _leave(self, index: int) -> Waiter | None:
        return self._places.get(self.version(index), {}).pop(index, None)
