"""An environment defines the requests of a policy, and the views and the cost of each request.

    question, image --first_view--> policy --text--> parse --> Answer ............ the episode ends
                                      ^                   --> Malformed ......... the episode ends
                                      |                   --> Request --cost--> reward
                                      +------ views ----------- |

`cover` returns the request that supervised fine-tuning teaches, and `write` returns its text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from awares.crops import Box
from awares.tokens import Size
from awares.view import View

OTHER = "other"
"""The name under which metrics count all regions that are not in `Environment.regions`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A turn that answers the question.

    Example:
        Answer("7")
    """

    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """A turn that requests regions of the image. Raises ValueError if `regions` is empty.

    Example:
        Request(("0", "5"))
    """

    regions: tuple[str, ...]
    """The names of the requested regions in the order of the turn's text, without repetitions."""
    canonical: bool = True
    """Whether the turn's text equals the text that `Environment.write` returns."""

    def __post_init__(self) -> None:
        if not self.regions:
            raise ValueError("a request names at least one region")


@dataclass(frozen=True, slots=True)
class Malformed:
    """A turn that attempts a request, but cannot be parsed or exceeds the budget.

    `reason` says what is wrong.

    Example:
        Malformed("text after the request")
    """

    reason: str


Parsed = Answer | Request | Malformed


class Environment(Protocol):
    """Defines the regions that a policy may request, and the views that answer a request.

    To use an environment of your own, set `method.environment = "module:attribute"`. The attribute
    is called with every setting of the table [method.environment_settings]. It also gets these
    arguments, if it has parameters with these names:

    - `max_turns`, or another setting of [method];
    - `rule`: the `awares.view_rule.ViewRule` of [method], which chooses the resolution of views.

    Serving calls `parse_lenient` instead of `parse` if the environment has this method. An
    environment must not store anything between calls, because each job builds its own.

    Example:
        class Zoom:
            \"\"\"ZOOM asks for the centre of the image at full resolution.\"\"\"

            system_prompt = "Answer the question, or reply ZOOM to see the centre in detail."
            regions = ("centre",)

            def __init__(self, max_turns: int = 2, rule: ViewRule = RELATIVE) -> None:
                self.max_turns, self._rule = max_turns, rule

            def first_view(self, size):
                return self._rule.low(size)

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
                box = (width // 4, height // 4, width - width // 4, height - height // 4)
                return (self._rule.region(box, size),)

            def cost(self, request, size):
                return 0.25

            def cover(self, boxes, size):
                return Request(("centre",))
    """

    @property
    def system_prompt(self) -> str:
        """The system message, which explains requests to a policy that is not trained on them."""
        ...

    @property
    def max_turns(self) -> int:
        """The largest number of assistant turns in an episode.

        A request in the last turn ends the episode without an answer.
        """
        ...

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that metrics count by name. Metrics count all other regions as "other"."""
        ...

    def first_view(self, size: Size) -> View:
        """Return the view that comes with the question, for an image of `size`."""
        ...

    def parse(self, text: str) -> Parsed:
        """Parse the decoded text of one assistant turn, without special tokens. Never raises."""
        ...

    def write(self, request: Request) -> str:
        """Return a request's canonical text, which `parse` must turn back into the request."""
        ...

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """Return the views that answer the request on an image of `size`: at least one view."""
        ...

    def cost(self, request: Request, size: Size) -> float:
        """Return the area of the requested regions as a share of the image's area.

        If regions overlap, the overlap counts twice.
        """
        ...

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """Return a request whose views show all evidence `boxes`, or None if no request does.

        The boxes are in pixels of an image of `size`. Without boxes the evidence is unknown, and
        the request covers the whole image.
        """
        ...


def lenient_parser(environment: Environment) -> Callable[[str], Parsed]:
    """Return the parser that serving uses: the environment's `parse_lenient`, or else its `parse`.

    `parse_lenient` accepts more spellings of a request. It never adds a region that the text does
    not name.
    """
    return getattr(environment, "parse_lenient", environment.parse)


def readable(environment: Environment, regions: Sequence[str]) -> Request | None:
    """Return the request for `regions`, or None if `environment` does not offer them.

    An environment offers regions if `parse` finds them in the text that `write` returns for them.
    """
    if not regions:
        return None
    request = Request(tuple(regions))
    parsed = environment.parse(environment.write(request))
    return parsed if isinstance(parsed, Request) and parsed.regions == request.regions else None


def count_regions(regions: Iterable[str], listed: Sequence[str]) -> dict[str, int]:
    """Return how often each of the `listed` regions occurs in `regions`.

    The key "other" counts the unlisted regions. Without such regions, the key is absent.

    Example:
        count_regions(["0", "0", "9"], ("0", "1"))  # {"0": 2, "1": 0, "other": 1}
    """
    counts = Counter(region if region in listed else OTHER for region in regions)
    return {name: counts[name] for name in listed} | (
        {OTHER: counts[OTHER]} if counts[OTHER] else {}
    )
