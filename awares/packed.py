"""Packs episodes into bytes, so that processes can exchange thousands of episodes a second.

    actor:       tokens, turns --pack--> bytes, figures --pickle--+
    controller:  figures of each episode <------------------------+--> learner, reward, journal
    learner:     tokens, turns <--unpack--+

An episode of two turns consists of about a thousand Python objects, and a packed episode only of a
few. Pickling a packed episode only copies bytes.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from awares.carried import Carried

ID, LOGPROB, VERSION = "i", "d", "q"
"""The type codes of the module `array` for the packed numbers."""
P = TypeVar("P")


class PackedTokens(NamedTuple):
    """The tokens of one turn as bytes, in the byte order of this machine.

    context_ids   an int32 for each context id
    sampled_ids   an int32 for each sampled id
    logprobs      a float64 for each sampled id
    spans         two int64 for each run of equal versions: the version, and the length of the run

    Example:
        PackedTokens.of((1, 9, 2), (17, 151645), (-0.1, 0.0), (3, 3))
    """

    context_ids: bytes
    sampled_ids: bytes
    logprobs: bytes
    spans: bytes

    @classmethod
    def of(
        cls,
        context_ids: Sequence[int],
        sampled_ids: Sequence[int],
        logprobs: Sequence[float],
        versions: Sequence[int],
    ) -> "PackedTokens":
        """Pack the tokens of a turn. Raises OverflowError if an id does not fit into 32 bits."""
        runs = ((version, sum(1 for _ in run)) for version, run in groupby(versions))
        return cls(
            array(ID, context_ids).tobytes(),
            array(ID, sampled_ids).tobytes(),
            array(LOGPROB, logprobs).tobytes(),
            array(VERSION, chain.from_iterable(runs)).tobytes(),
        )

    def unpacked(self, name: str) -> tuple[int, ...] | tuple[float, ...]:
        """Return the numbers of the field `name` of a turn."""
        if name == "versions":
            return tuple(chain.from_iterable(repeat(*run) for run in self.runs))
        code = LOGPROB if name == "logprobs" else ID
        return tuple(array(code, getattr(self, name)))

    @property
    def context_count(self) -> int:
        """The number of context ids."""
        return len(self.context_ids) // array(ID).itemsize

    @property
    def sampled_count(self) -> int:
        """The number of sampled ids."""
        return len(self.sampled_ids) // array(ID).itemsize

    @property
    def runs(self) -> Iterator[tuple[int, int]]:
        """Each run of equal versions, as the version and the number of its tokens, in order."""
        numbers = iter(array(VERSION, self.spans))
        return zip(numbers, numbers, strict=True)

    @property
    def finite(self) -> bool:
        """Whether the sum of all logprobs is finite. A finite sum has only finite terms."""
        return math.isfinite(sum(array(LOGPROB, self.logprobs)))


class PackedTurns(NamedTuple):
    """The pickled turns of one episode, and figures that processes read without unpickling them.

    `data` holds the pickled turns, and `count` is their number. `tokens` has the number of sampled
    tokens of each weight version. `finite` is false if a logprob of a sampled token is not finite.

    Example:
        PackedTurns(data, count=2, tokens=((3, 80),), finite=True)
    """

    data: bytes
    count: int
    tokens: tuple[tuple[int, int], ...]
    finite: bool

    @property
    def sampled_count(self) -> int:
        """The number of sampled tokens."""
        return sum(count for _, count in self.tokens)


class Packable(Carried, Generic[P]):
    """A base class for data classes. It pickles some of their fields in packed form.

    `PACKED` names these fields, and `packed` holds them in packed form. An unpickled object has
    only the packed form, and each field is unpacked when code first reads the field. Any other
    object is packed when code first reads `packed`.

    Example:
        class Turn(Packable[PackedTokens]): ...
    """

    __slots__ = ("packed",)
    PACKED: ClassVar[tuple[str, ...]]
    packed: P

    def pack(self) -> P:
        """Return the fields in `PACKED` in packed form."""
        raise NotImplementedError

    def unpack(self, name: str) -> Any:
        """Return the field `name`, which is one of `PACKED`, from `packed`."""
        raise NotImplementedError

    @classmethod
    def pickled(cls) -> tuple[str, ...]:
        return ("packed", *(name for name in super().pickled() if name not in cls.PACKED))

    if not TYPE_CHECKING:  # A type checker would accept any attribute name if it saw this method.

        def __getattr__(self, name: str) -> Any:
            """Compute a slot's value. Python calls this method only if the slot has no value."""
            if name == "packed":
                value = self.pack()
            elif name in self.PACKED:
                value = self.unpack(name)
            else:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            object.__setattr__(self, name, value)
            return value
