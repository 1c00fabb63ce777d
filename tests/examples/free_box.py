"""An example of a custom environment: the policy may ask for any box of the image.

The coordinates of a box are thousandths of the image's width and height. Name the class in the
setup:

    [method]
    environment = "free_box:FreeBox"
    environment_settings = { padding = 0.05 }
"""

import re
from collections.abc import Sequence

from awares.crops import Box, clamp, pad
from awares.environment import Answer, Malformed, Parsed, Request, Size
from awares.view import View
from awares.view_rule import RELATIVE, ViewRule

_REQUEST = re.compile(r"LOOK \[(\d+), (\d+), (\d+), (\d+)\]")


class FreeBox:
    """Answers the request `LOOK [x0, y0, x1, y1]` with a crop of this box.

    The coordinates are thousandths of the image's width and height.

    Example:
        FreeBox().parse("LOOK [0, 0, 500, 500]")  # Request(("0, 0, 500, 500",))
    """

    system_prompt = "Answer, or reply LOOK [x0, y0, x1, y1] in 0..1000 to see that box in detail."
    # There are too many boxes to list here. The metrics count all unlisted boxes under "other".
    regions: tuple[str, ...] = ()

    def __init__(
        self, max_turns: int = 2, padding: float = 0.03, rule: ViewRule = RELATIVE
    ) -> None:
        self.max_turns, self._padding, self._rule = max_turns, padding, rule

    def first_view(self, size: Size) -> View:
        """Return a View of the whole image at low resolution."""
        return self._rule.low(size)

    def parse(self, text: str) -> Parsed:
        """Parse the text of one turn.

        - An answer has neither "LOOK" nor "[".
        - A request is exactly `LOOK [x0, y0, x1, y1]`, with a box that is not empty and in range.
        - All other text is malformed.
        """
        if "LOOK" not in text and "[" not in text:
            return Answer(text.strip())
        found = _REQUEST.fullmatch(text.strip())
        if found is None:
            return Malformed("not LOOK [x0, y0, x1, y1]")
        left, top, right, bottom = map(int, found.groups())
        if not (left < right <= 1000 and top < bottom <= 1000):
            return Malformed("the box is empty or outside of 0..1000")
        return Request((f"{left}, {top}, {right}, {bottom}",))

    def write(self, request: Request) -> str:
        """Return the text that the policy learns to write for this request."""
        return f"LOOK [{request.regions[0]}]"

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """Return one View of the requested box in pixels. The box's edges are rounded outwards."""
        left, top, right, bottom = _thousandths(request)
        width, height = size
        box = (left * width // 1000, top * height // 1000)
        edges = (*box, -(-right * width // 1000), -(-bottom * height // 1000))
        return (self._rule.region(clamp(edges, size), size),)

    def cost(self, request: Request, size: Size) -> float:
        """Return the area of the box divided by the area of the image."""
        left, top, right, bottom = _thousandths(request)
        return (right - left) * (bottom - top) / 1_000_000

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """Return a request for the smallest box around all evidence boxes and their padding.

        If there is no evidence box, return a request for the whole image.
        """
        if not boxes:
            return Request(("0, 0, 1000, 1000",))
        width, height = size
        lefts, tops, rights, bottoms = zip(
            *(pad(box, size, self._padding) for box in boxes), strict=True
        )
        left, top = min(lefts) * 1000 // width, min(tops) * 1000 // height
        right, bottom = -(-max(rights) * 1000 // width), -(-max(bottoms) * 1000 // height)
        return Request((f"{left}, {top}, {right}, {bottom}",))


def _thousandths(request: Request) -> Box:
    left, top, right, bottom = map(int, request.regions[0].split(", "))
    return left, top, right, bottom
