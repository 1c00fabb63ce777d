"""An environment in which the policy gets one view and must answer in one turn."""

from collections.abc import Sequence

from awares.crops import Box
from awares.environment import Environment, Parsed, Request, Size
from awares.view import View, full_view


class OneTurn:
    """Shows one view, at low or at full resolution, and allows one turn.

    A request for crops, as `environment` parses it, ends the episode without an answer.

    Example:
        OneTurn(TenCrops(), full=True).first_view((112, 56))  # View((0, 0, 112, 56))
    """

    max_turns = 1

    def __init__(self, environment: Environment, *, full: bool) -> None:
        self._environment, self._full = environment, full
        self.system_prompt, self.regions = environment.system_prompt, environment.regions

    def first_view(self, size: Size) -> View:
        """Return the whole image if `full` is true, and otherwise `environment`'s first view."""
        return full_view(size) if self._full else self._environment.first_view(size)

    def parse(self, text: str) -> Parsed:
        """Parse a turn as `environment` does."""
        return self._environment.parse(text)

    def write(self, request: Request) -> str:
        """Return the request as `environment` writes it."""
        return self._environment.write(request)

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """Return the views of `environment` for the request."""
        return self._environment.views(request, size)

    def cost(self, request: Request, size: Size) -> float:
        """Return the cost of the request in `environment`."""
        return self._environment.cost(request, size)

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """Return the request of `environment` that covers `boxes`, or None if there is none."""
        return self._environment.cover(boxes, size)
