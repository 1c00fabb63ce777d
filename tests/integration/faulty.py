"""Subscribers that return a damaged version to the engine, past all of its own checks.

The engine's process imports this module when it unpickles one.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.weights.subscribe import Received, Subscriber


class Bending(Subscriber):
    """One tensor has another shape than in its manifest."""

    def __init__(self, store: ObjectStore, run: str, tensor: str) -> None:
        super().__init__(store, run)
        self._tensor_name = tensor

    def receive(self, version: int, held: Received | None = None) -> Received:
        received = super().receive(version, held)
        return replace(
            received,
            state={**received.state, self._tensor_name: received.state[self._tensor_name][:-1]},
        )


class Breaking(Bending):
    """Reading one tensor fails after others are loaded."""

    def receive(self, version: int, held: Received | None = None) -> Received:
        received = Subscriber.receive(self, version, held)
        return replace(received, state=_Broken(received.state, self._tensor_name))


class Dying(Bending):
    """The engine's process is killed while it reads one tensor, after others are loaded."""

    def receive(self, version: int, held: Received | None = None) -> Received:
        received = Subscriber.receive(self, version, held)
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
