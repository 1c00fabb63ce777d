"""When to publish an anchor: the settings, the measured sizes and the decision for one version."""

from dataclasses import dataclass, field

from awares_platform.weights.head import PublishedVersion

_USELESS = 0.7
"""A delta that is larger than this share of the last anchor is not worth its upload."""


@dataclass(frozen=True, slots=True)
class PublicationPlan:
    """Rank 0's decision on how to publish one version.

    The version gets a delta to `base` unless `base` is None. It gets an anchor if `anchor` is set.

    Example:
        PublicationPlan(version=12, epoch=1, base=11, anchor=False)
    """

    version: int
    epoch: int
    base: int | None
    anchor: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """The policy that a run's weights belong to; it is the same for every version of the run.

    `processor` and `template` are the blake3 of the image processor and of the chat template.
    `adapter` is the LoRA scale if the run publishes an adapter alone, else None.

    Example:
        Identity(processor="5d1c...", template="77b0...", adapter=2.0)
    """

    processor: str = ""
    template: str = ""
    adapter: float | None = None


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often anchors are written, and how long old versions are kept.

    `anchor_every` bounds the versions from one anchor to the next. `keep` counts the newest
    versions that stay, whether or not HEAD's version needs them. A version that is dropped
    from HEAD stays fetchable for `grace_s` seconds.

    Example:
        Cadence(anchor_every=16, keep=4, grace_s=60.0)
    """

    anchor_every: int = 16
    keep: int = 4
    grace_s: float = 60.0


@dataclass(slots=True)
class ChainCost:
    """Bytes of the last anchor and of each delta after it: the cost of joining the run."""

    anchor: int = 0
    deltas: list[int] = field(default_factory=list)

    def want_anchor(self, every: int) -> bool:
        """Whether to write an anchor: the chain is too long, or dearer to join than an anchor.

        The next delta is assumed to be as large as the last one.
        """
        return len(self.deltas) + 1 >= every or sum(self.deltas) + self.last > self.anchor

    @property
    def last(self) -> int:
        """Bytes of the last delta; 0 right after an anchor."""
        return self.deltas[-1] if self.deltas else 0

    @property
    def delta_is_useless(self) -> bool:
        """Whether deltas are nearly as large as an anchor, so that an anchor alone is enough."""
        return self.last > _USELESS * self.anchor

    def add(self, entry: PublishedVersion) -> None:
        """Record a published version."""
        if entry.anchor is not None:
            self.anchor, self.deltas = entry.anchor.size, []
        else:
            self.deltas.append(entry.forms[0].size)
