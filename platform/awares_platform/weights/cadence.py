"""Decides when the writer publishes an anchor.

An anchor holds all weights. A delta holds only the difference from the previous version. The
decision depends on settings and on the sizes of the anchors and deltas that were published before.
"""

from dataclasses import dataclass, field

from awares_platform.weights.head import PublishedVersion

_USELESS = 0.7
"""A delta is useless if its size exceeds this share of the last anchor's size."""


@dataclass(frozen=True, slots=True)
class PublicationPlan:
    """Rank 0's decision to publish the version `version` as a delta, as an anchor, or as both.

    `epoch` is the number of the writer. Unless `base` is None, the ranks upload the delta that
    turns version `base` into `version`. They upload an anchor if `anchor` is true.

    Example:
        PublicationPlan(version=12, epoch=1, base=11, anchor=False)
    """

    version: int
    epoch: int
    base: int | None
    anchor: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies the policy to which the weights of a run belong.

    `processor` is the digest of the image processor's files. `template` is the digest of the files
    of the tokenizer and the chat template. `training.policy.interface` returns both. `adapter` is
    the LoRA scale if the run publishes only an adapter. Otherwise `adapter` is None.

    Example:
        Identity(processor="5d1c...", template="77b0...", adapter=2.0)
    """

    processor: str = ""
    template: str = ""
    adapter: float | None = None


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often the writer publishes anchors, and how long it keeps old versions.

    `anchor_every` is the maximum number of versions from one anchor to the next. The `keep` newest
    versions always stay in the store. The writer drops an older version from HEAD when nothing
    needs the version any more (retention.py). At least `grace_s` seconds later it deletes the
    version.

    Example:
        Cadence(anchor_every=16, keep=4, grace_s=60.0)
    """

    anchor_every: int = 16
    keep: int = 4
    grace_s: float = 60.0


@dataclass(slots=True)
class ChainCost:
    """The size of the last anchor, and the sizes of the deltas after this anchor, in bytes.

    A new reader downloads the anchor and all these deltas.
    """

    anchor: int = 0
    deltas: list[int] = field(default_factory=list)

    def want_anchor(self, every: int) -> bool:
        """Return whether the next version needs an anchor.

        An anchor holds all weights. It is due if the next version is `every` versions after the
        last anchor. It is also due if the deltas since the last anchor, with the next delta, would
        exceed the size of that anchor. The next delta is assumed to be as large as the last delta.
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
