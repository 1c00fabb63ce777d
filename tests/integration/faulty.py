"""Provides subscribers that damage a version after it has passed all checks of Subscriber.

The classes are in a module of their own, because the engine's process must import them.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.weights.readers import ALONE, Readers
from awares_platform.weights.subscribe import Received, Subscriber


class Bending(Subscriber):
    """A subscriber that drops the last row of the tensor `tensor`, which then has a wrong shape."""

    def __init__(self, store: ObjectStore, run: str, tensor: str) -> None:
        super().__init__(store, run)
        self._tensor_name = tensor

    def receive(
        self, version: int, held: Received | None = None, readers: Readers = ALONE
    ) -> Received:
        received = super().receive(version, held, readers)
        return replace(
            received,
            state={**received.state, self._tensor_name: received.state[self._tensor_name][:-1]},
        )


class Breaking(Bending):
    """A subscriber whose versions raise MemoryError when the engine reads the tensor `tensor`."""

    def receive(
        self, version: int, held: Received | None = None, readers: Readers = ALONE
    ) -> Received:
        received = Subscriber.receive(self, version, held, readers)
        return replace(received, state=_Broken(received.state, self._tensor_name))


class Dying(Bending):
    """A subscriber whose versions kill the engine process when it reads the tensor `tensor`."""

    def receive(
        self, version: int, held: Received | None = None, readers: Readers = ALONE
    ) -> Received:
        received = Subscriber.receive(self, version, held, readers)
        return replace(received, state=_Killing(received.state, self._tensor_name))


class _Broken(Mapping[str, Tensor]):
    def __init__(self, state: Mapping[str, Tensor], broken: str) -> None:
        self._state, self._broken = state, broken

    def __getitem__(self, name: str) -> Tensor:
        if name == self._broken:
            raise MemoryError(f"injected: no room for {name}")
        return self._state[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


class _Killing(_Broken):
    def __getitem__(self, name: str) -> Tensor:
        if name == self._broken:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._state[name]
