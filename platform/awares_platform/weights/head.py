"""Defines HEAD, the object in the store that lists the versions of a run that can be fetched.

HEAD also lists each version's forms: a delta, an anchor, or both. The writer overwrites HEAD at
every publication.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass

from awares_platform.weights.manifest import WeightsError, folder

FIRST, ANCHOR, REPAIR = FORM_NAMES = ("manifest.json", "anchor.json", "repair.json")


def head_key(run: str) -> str:
    """Return the store key of a run's HEAD."""
    return f"{folder(run)}/HEAD"


@dataclass(frozen=True, slots=True)
class Form:
    """One stored form of a version, which is a delta or an anchor.

    A delta holds the difference from an older version, and an anchor holds all weights.

    Example:
        Form("manifest.json", 11, 135000, "9c0e...")
    """

    name: str
    """The name of the form's manifest in the version's folder."""
    base: int | None
    """The version from which a delta starts, or None for an anchor."""
    size: int
    """The number of bytes of the form's weight shards."""
    digest: str
    """The blake3 hash of the form's manifest."""


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """One published version with its forms: a delta, an anchor or both.

    Example:
        delta = Form("manifest.json", 11, 135000, "9c0e...")
        PublishedVersion(12, (delta, Form("anchor.json", None, 3600000, "07aa...")))
    """

    version: int
    forms: tuple[Form, ...]

    @property
    def anchor(self) -> Form | None:
        """The form that needs no other version, or None if the version has no anchor."""
        return next((form for form in self.forms if form.base is None), None)


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a reader towards a target version.

    The reader loads `form`. After this step, the reader holds the version `version`.

    Example:
        Hop(12, Form("manifest.json", 11, 135000, "9c0e..."))
    """

    version: int
    form: Form


@dataclass(frozen=True, slots=True)
class Head:
    """The content of HEAD.

    `epoch` is the epoch of the writer. `published` lists the versions that can be fetched, newest
    first.

    Example:
        Head(1, (PublishedVersion(12, ...), PublishedVersion(11, ...)))
    """

    epoch: int
    published: tuple[PublishedVersion, ...] = ()

    @property
    def version(self) -> int | None:
        """The newest version, or None before the first publication."""
        return self.published[0].version if self.published else None

    def find(self, version: int) -> PublishedVersion | None:
        """Return the entry of `version`, or None if this HEAD does not name the version."""
        return next((entry for entry in self.published if entry.version == version), None)

    def path(
        self, target: int, have: int | None = None, avoid: Collection[Hop] = ()
    ) -> tuple[Hop, ...] | None:
        """Return the hops (downloads) to `target` with the fewest bytes, in loading order.

        `have` is the version that the reader holds, or None. `avoid` lists damaged hops. The result
        is None if no hops lead to `target`.
        """
        cheapest: dict[int, tuple[int, tuple[Hop, ...]]] = {} if have is None else {have: (0, ())}
        for entry in reversed(
            self.published
        ):  # Old to new: a delta's base is older than the delta.
            for form in entry.forms:
                hop = Hop(entry.version, form)
                before = (0, ()) if form.base is None else cheapest.get(form.base)
                if before is None or hop in avoid or entry.version == have:
                    continue
                cost = before[0] + form.size
                if entry.version not in cheapest or cost < cheapest[entry.version][0]:
                    cheapest[entry.version] = (cost, (*before[1], hop))
        return cheapest[target][1] if target in cheapest and self.find(target) else None

    def to_bytes(self) -> bytes:
        """Return the HEAD object as JSON."""
        rows = [(entry.version, [*map(_row, entry.forms)]) for entry in self.published]
        return json.dumps({"epoch": self.epoch, "published": rows}, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Head":
        """Parse the result of `to_bytes`. Raises WeightsError if `data` is not a HEAD object."""
        try:
            values = json.loads(data)
            return cls(int(values["epoch"]), tuple(_entry(*row) for row in values["published"]))
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"not a HEAD object of weights: {error}") from error


def _row(form: Form) -> list[str | int | None]:
    return [form.name, form.base, form.size, form.digest]


def _entry(version: int, forms: list[list]) -> PublishedVersion:
    return PublishedVersion(
        int(version),
        tuple(Form(str(name), base, int(size), str(digest)) for name, base, size, digest in forms),
    )
