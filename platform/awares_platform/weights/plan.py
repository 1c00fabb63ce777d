"""Which forms a version is published in: a delta to the one before, and now and then an anchor besides."""

from dataclasses import dataclass, field

from awares_platform.weights.head import Published

_USELESS = 0.7  # of an anchor's bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What rank 0 decided for one publication: a delta to `base` unless that is None, and an anchor if so said.

    Example:
        Plan(version=12, epoch=1, base=11, anchor=False)
    """

    version: int
    epoch: int
    base: int | None
    anchor: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run's weights belong to, the same for every version. `adapter` is the scale of a LoRA run that publishes its adapter alone.

    Example:
        Identity(processor="5d1c...", template="77b0...", adapter=2.0)
    """

    processor: str = ""
    template: str = ""
    adapter: float | None = None


@dataclass(frozen=True, slots=True)
class Cadence:
    """When anchors are written, how much is kept and for how long.

    `keep` is how many versions stay whatever HEAD's chain needs; what is dropped stays fetchable for `grace_s`.

    Example:
        Cadence(anchor_every=16, keep=4, grace_s=60.0)
    """

    anchor_every: int = 16
    keep: int = 4
    grace_s: float = 60.0


@dataclass(slots=True)
class Costs:
    """Bytes of the last anchor and of the deltas since."""

    anchor: int = 0
    deltas: list[int] = field(default_factory=list)

    def want_anchor(self, every: int) -> bool:
        """Whether one more delta, as large as the last, would make joining dearer than a new anchor does, or the chain too long."""
        return len(self.deltas) + 1 >= every or sum(self.deltas) + self.last > self.anchor

    @property
    def last(self) -> int:
        """Bytes of the delta before; 0 right after an anchor."""
        return self.deltas[-1] if self.deltas else 0

    @property
    def delta_is_useless(self) -> bool:
        """Whether the last delta came so near to an anchor's size that the next is not worth its upload where an anchor is written."""
        return self.last > _USELESS * self.anchor

    def add(self, entry: Published) -> None:
        """A version was published."""
        if entry.anchor is not None:
            self.anchor, self.deltas = entry.anchor.size, []
        else:
            self.deltas.append(entry.forms[0].size)
