"""Stores the replies of the judge and the grounding model, so that no reply is paid for twice.

    datasets/<name>/replies/<time>-<random>.jsonl    each line is {"key", "reply"}

The key is a digest of the whole request. A later line with the same key replaces the earlier line,
or deletes it if the reply is null.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, Self, TypeVar

from awares.errors import AwaresError
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound


class BudgetSpent(AwaresError):
    """The judge and the grounding model have cost as much as curate.budget allows."""


class PaidReply(Protocol):
    """A reply and its cost, in the currency of the endpoint's prices.

    `as_json` returns the constructor's keyword arguments, from which `ReplyLog` restores the reply.
    """

    @property
    def cost(self) -> float: ...

    def as_json(self) -> dict[str, Any]: ...


Reply = TypeVar("Reply", bound=PaidReply)


class ReplyLog(Generic[Reply]):
    """What the judge and the grounding model have replied about one data set.

    `make` constructs a reply from the keyword arguments that its `as_json` has returned.

    Example:
        log = ReplyLog.load(store, "datasets/invoices/replies/", KeptReply)
        await log.keep(key, KeptReply("2"))
        log.kept(key)
    """

    def __init__(
        self, store: ObjectStore, prefix: str, make: Callable[..., Reply], budget: float = 0.0
    ) -> None:
        self._store, self._prefix, self._make = store, prefix, make
        self._budget, self._cost = budget, 0.0
        self._replies: dict[str, Reply | None] = {}
        self._waiting: list[str] = []
        self._written: list[str] = []
        self._turn = asyncio.Lock()
        self._doubted: set[str] = set()

    @classmethod
    def load(
        cls, store: ObjectStore, prefix: str, make: Callable[..., Reply], budget: float = 0.0
    ) -> Self:
        """Read all replies below `prefix`. Raises StoreError if the store fails.

        `budget` is the largest cost of all replies together, or 0 without a limit.
        """
        log = cls(store, prefix, make, budget)
        for key in sorted(info.key for info in store.list(prefix)):
            try:
                log._read(store.get(key))
            except NotFound:  # Another process has just merged this object into a larger one.
                continue
        return log

    def _read(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            found = json.loads(line)
            reply = self._make(**found["reply"]) if found["reply"] else None
            # While a process merges objects, two objects can hold the same reply. Count its cost
            # only once.
            if reply is not None and reply != self._replies.get(found["key"]):
                self._cost += reply.cost
            self._replies[found["key"]] = reply

    def spent(self) -> AwaresError | None:
        """Return the error to raise if the budget is spent, and otherwise None."""
        if not self._budget or self._cost < self._budget:
            return None
        return BudgetSpent(
            f"curate.budget={self._budget:g} is spent: the replies below {self._prefix} have cost "
            f"{self._cost:.2f}. Raise curate.budget and run the command again; it pays for no "
            "reply twice"
        )

    def kept(self, key: str) -> Reply | None:
        """Return the stored reply to the request with this key, or None if there is none."""
        return self._replies.get(key)

    async def keep(self, key: str, reply: Reply) -> None:
        """Write a reply to the store. Raises StoreError if the store fails."""
        self._replies[key] = reply
        self._cost += reply.cost
        await self._write([key])

    def doubt(self, key: str) -> None:
        """Mark a reply as unreadable, so that `forget_doubted` deletes it."""
        self._doubted.add(key)

    async def forget_doubted(self) -> None:
        """Delete the unreadable replies, so that a repaired endpoint is asked again."""
        self._replies |= dict.fromkeys(self._doubted)
        await self._write(sorted(self._doubted))

    async def _write(self, keys: Iterable[str]) -> None:
        """Write the replies of `keys` to the store.

        All calls that arrive during a write are then written together, as one object.
        """
        self._waiting += keys
        async with self._turn:
            if self._waiting:
                batch, self._waiting = self._waiting, []
                await asyncio.to_thread(self._put, batch)

    def _put(self, keys: Iterable[str]) -> None:
        name = f"{self._prefix}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
        replies = ((key, self._replies[key]) for key in keys)
        lines = [
            json.dumps({"key": key, "reply": reply and reply.as_json()}) for key, reply in replies
        ]
        self._store.put(name, "\n".join(lines).encode())
        self._written.append(name)

    async def merge(self) -> None:
        """Merge all objects that this log has written into a single object."""
        async with self._turn:
            await asyncio.to_thread(self._merge)

    def _merge(self) -> None:
        if len(self._written) < 2:
            return
        parts = [self._store.get(name) for name in self._written]
        merged = f"{self._written[-1].removesuffix('.jsonl')}-merged.jsonl"
        self._store.put(merged, b"\n".join(parts))
        for name in self._written:
            self._store.delete(name)
        self._written = [merged]
