"""The environment of a policy that answers at once: one view, no request."""

from collections.abc import Sequence

from awares.crops import Box
from awares.environment import Environment, Parsed, Request, Size
from awares.view import View, full_view


class OneTurn:
    """One view and one answer: how the base policy plays, at low or at full resolution.

    Turns are read as `environment` reads them, so that a request is not taken for an answer. It
    ends the episode without one.

    Example:
        OneTurn(TenCrops(), full=True).first_view((112, 56))  # View((0, 0, 112, 56))
    """

    max_turns = 1

    def __init__(self, environment: Environment, *, full: bool) -> None:
        self._environment, self._full = environment, full
        self.system_prompt, self.regions = environment.system_prompt, environment.regions

    def first_view(self, size: Size) -> View:
        """The whole image at native pixels if `full`, else the first view of `environment`."""
        return full_view(size) if self._full else self._environment.first_view(size)

    def parse(self, text: str) -> Parsed:
        """Read one turn as `environment` does."""
        return self._environment.parse(text)

    def write(self, request: Request) -> str:
        """The request as `environment` writes it."""
        return self._environment.write(request)

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """The views that `environment` would return."""
        return self._environment.views(request, size)

    def cost(self, request: Request, size: Size) -> float:
        """The cost in `environment`."""
        return self._environment.cost(request, size)

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """The covering request in `environment`."""
        return self._environment.cover(boxes, size)
