"""HEAD: the one mutable object of a run's weights. It says which versions can be fetched, in which forms, and from what each starts."""

import json
from collections.abc import Collection
from dataclasses import dataclass

from awares_platform.weights.manifest import WeightsError, folder

FIRST, ANCHOR, REPAIR = FORM_NAMES = ("manifest.json", "anchor.json", "repair.json")


def head_key(run: str) -> str:
    """Key of HEAD."""
    return f"{folder(run)}/HEAD"


@dataclass(frozen=True, slots=True)
class Form:
    """One way to get a version: the manifest `name` in its folder, by its blake3. `base` is the version that it changes, None for an
    anchor, which needs nothing; `size` are the bytes to download.

    Example:
        Form("manifest.json", 11, 135000, "9c0e...")
    """

    name: str
    base: int | None
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Published:
    """One published version in its one or two forms.

    Example:
        Published(12, (Form("manifest.json", 11, 135000, "9c0e..."), Form("anchor.json", None, 3600000, "07aa...")))
    """

    version: int
    forms: tuple[Form, ...]

    @property
    def anchor(self) -> Form | None:
        """The form that needs no other version."""
        return next((form for form in self.forms if form.base is None), None)


@dataclass(frozen=True, slots=True)
class Hop:
    """One manifest on the way to a version.

    Example:
        Hop(12, Form("manifest.json", 11, 135000, "9c0e..."))
    """

    version: int
    form: Form


@dataclass(frozen=True, slots=True)
class Head:
    """The writer's epoch and the versions that can be fetched, newest first.

    Example:
        Head(1, (Published(12, ...), Published(11, ...)))
    """

    epoch: int
    published: tuple[Published, ...] = ()

    @property
    def version(self) -> int | None:
        """The newest version; None before the first."""
        return self.published[0].version if self.published else None

    def find(self, version: int) -> Published | None:
        """The entry of `version`; None if it is not published, or no longer kept."""
        return next((entry for entry in self.published if entry.version == version), None)

    def path(
        self, target: int, have: int | None = None, avoid: Collection[Hop] = ()
    ) -> tuple[Hop, ...] | None:
        """The way to `target` of the fewest bytes, for a reader that holds `have`, in the order of loading; None if there is none.

        Empty if it holds `target` already. `avoid` are hops that turned out damaged.
        """
        cheapest: dict[int, tuple[int, tuple[Hop, ...]]] = {} if have is None else {have: (0, ())}
        for entry in reversed(self.published):  # bases are older than what is built on them
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
        """JSON."""
        rows = [
            [
                entry.version,
                [[form.name, form.base, form.size, form.digest] for form in entry.forms],
            ]
            for entry in self.published
        ]
        return json.dumps({"epoch": self.epoch, "published": rows}, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Head":
        """Raises WeightsError for anything that is no HEAD."""
        try:
            values = json.loads(data)
            return cls(int(values["epoch"]), tuple(_published(*row) for row in values["published"]))
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"no HEAD of weights: {error}") from error


def _published(version: int, forms: list[list]) -> Published:
    return Published(
        int(version),
        tuple(Form(str(name), base, int(size), str(digest)) for name, base, size, digest in forms),
    )
