"""The environment of a policy: what it may ask for, what comes back, and what that costs.

    question, image --first_view--> policy --text--> parse --> Answer ............ the episode ends
                                      ^                   --> Malformed ......... the episode ends
                                      |                   --> Request --cost--> reward
                                      +------ views ----------- |

Curation asks for the request that covers the evidence (`cover`). Supervised fine-tuning shows how
that request is written (`write`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from awares.crops import Box
from awares.tokens import Size
from awares.view import View

OTHER = "other"
"""The name under which metrics count every region that an environment does not list."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A turn that answers.

    Example:
        Answer("7")
    """

    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """A turn that requests regions of the image: each region once, in the order written.

    The environment defines the names of regions. `canonical` is false if the text differs from the
    form that `write` gives. Raises ValueError without a region.

    Example:
        Request(("0", "5"))
    """

    regions: tuple[str, ...]
    canonical: bool = True

    def __post_init__(self) -> None:
        if not self.regions:
            raise ValueError("a request names at least one region")


@dataclass(frozen=True, slots=True)
class Malformed:
    """A turn that attempts a request, but does not parse as one.

    Example:
        Malformed("text after the request")
    """

    reason: str


Parsed = Answer | Request | Malformed


class Environment(Protocol):
    """The regions that a policy may request, and the views that it gets for them.

    The configuration names an environment as `method.environment = "module:attribute"`. Its
    constructor gets the values of [method] that it names, such as `max_turns` or `allow_all`, and
    all of `method.environment_settings`. All five jobs build it anew, so it keeps no state.

    Example:
        class Zoom:
            \"\"\"ZOOM asks for the centre of the image at full resolution.\"\"\"

            system_prompt = "Answer the question, or reply ZOOM to see the centre in detail."
            regions = ("centre",)

            def __init__(self, max_turns: int = 2) -> None:
                self.max_turns = max_turns

            def first_view(self, size):
                return View()

            def parse(self, text):
                if not text.startswith("ZOOM"):
                    return Answer(text.strip())
                if text.strip() != "ZOOM":
                    return Malformed("text after ZOOM")
                return Request(("centre",))

            def write(self, request):
                return "ZOOM"

            def views(self, request, size):
                width, height = size
                return (View((width // 4, height // 4, width - width // 4, height - height // 4)),)

            def cost(self, request, size):
                return 0.25

            def cover(self, boxes, size):
                return Request(("centre",))
    """

    @property
    def system_prompt(self) -> str:
        """The system message that explains requests, for a policy that is not trained for them."""
        ...

    @property
    def max_turns(self) -> int:
        """Assistant turns per episode. A request in the last turn ends the episode unanswered."""
        ...

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that metrics count by name; all others are counted together as "other"."""
        ...

    def first_view(self, size: Size) -> View:
        """The view of an image of `size` that comes with the question."""
        ...

    def parse(self, text: str) -> Parsed:
        """Read one assistant turn, decoded and without special tokens. Never raises."""
        ...

    def write(self, request: Request) -> str:
        """The request in its canonical form; `parse` reads it back as the same request."""
        ...

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """The views of an image of `size` that answer a request: one or more."""
        ...

    def cost(self, request: Request, size: Size) -> float:
        """The share of the image's area that a request takes; overlaps count twice."""
        ...

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """The request that shows all evidence `boxes`, in pixels; None if none does.

        Without boxes the evidence is unknown, and the request covers the whole image.
        """
        ...


def readable(environment: Environment, regions: Sequence[str]) -> Request | None:
    """The request for `regions`, or None if the environment does not read back what it writes.

    Regions that another environment named fail this test.
    """
    if not regions:
        return None
    request = Request(tuple(regions))
    parsed = environment.parse(environment.write(request))
    return parsed if isinstance(parsed, Request) and parsed.regions == request.regions else None


def count_regions(regions: Iterable[str], listed: Sequence[str]) -> dict[str, int]:
    """How often each of the `listed` regions occurs, and how often any other, if one does.

    Example:
        count_regions(["0", "0", "9"], ("0", "1"))  # {"0": 2, "1": 0, "other": 1}
    """
    counts = Counter(region if region in listed else OTHER for region in regions)
    return {name: counts[name] for name in listed} | (
        {OTHER: counts[OTHER]} if counts[OTHER] else {}
    )
