"""Decides when the writer publishes an anchor, which holds all weights.

All other versions are published as deltas: differences from the previous version.
"""

from dataclasses import dataclass, field

from awares_platform.weights.head import PublishedVersion

_USELESS = 0.7
"""A delta is useless if its size exceeds this share of the last anchor's size."""


@dataclass(frozen=True, slots=True)
class PublicationPlan:
    """Rank 0's decision to publish a version as a delta, as an anchor, or as both.

    Example:
        PublicationPlan(version=12, epoch=1, base=11, anchor=False)
    """

    version: int
    epoch: int
    """The number of the writer. Each new writer of a run gets a higher number."""
    base: int | None
    """The version from which the delta starts, or None if there is no delta."""
    anchor: bool
    """True if the ranks upload an anchor."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies the policy to which the weights of a run belong.

    Example:
        Identity(processor="5d1c...", template="77b0...", adapter=2.0)
    """

    processor: str = ""
    """The digest of the image processor's files."""
    template: str = ""
    """The digest of the files of the tokenizer and the chat template."""
    adapter: float | None = None
    """The LoRA scale if the run publishes only an adapter, or None."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often the writer publishes anchors, and how long it keeps old versions.

    Example:
        Cadence(anchor_every=16, keep=4, grace_s=60.0)
    """

    anchor_every: int = 16
    """The maximum number of versions from one anchor to the next."""
    keep: int = 4
    """The number of newest versions that always stay in the store."""
    grace_s: float = 60.0
    """How long a version stays in the store after the object HEAD stops listing it, in seconds."""


@dataclass(slots=True)
class ChainCost:
    """The size of the last anchor, and the sizes of the deltas after this anchor, in bytes.

    A new reader downloads the anchor and all these deltas.
    """

    anchor: int = 0
    deltas: list[int] = field(default_factory=list)

    def want_anchor(self, every: int) -> bool:
        """Return whether the next version needs an anchor.

        An anchor is due after `every` versions, or when the deltas since the last anchor would
        become larger than this anchor. The next delta is assumed to be as large as the last one.
        """
        return len(self.deltas) + 1 >= every or sum(self.deltas) + self.last > self.anchor

    @property
    def last(self) -> int:
        """The number of bytes of the last delta, or 0 if the last version has an anchor."""
        return self.deltas[-1] if self.deltas else 0

    @property
    def delta_is_useless(self) -> bool:
        """True if the last delta is larger than 0.7 times the last anchor.

        The next version with an anchor is then published without a delta.
        """
        return self.last > _USELESS * self.anchor

    def add(self, entry: PublishedVersion) -> None:
        """Record the size of the version that was just published.

        If the version has an anchor, only the anchor's size counts. Otherwise the delta's size
        counts.
        """
        if entry.anchor is not None:
            self.anchor, self.deltas = entry.anchor.size, []
        else:
            self.deltas.append(entry.forms[0].size)
