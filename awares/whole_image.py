"""VisionThink's environment: the policy sees a low view, and may request the whole image."""

from collections.abc import Sequence

from awares.crops import Box, CropId
from awares.environment import Malformed, Parsed, Request, Size
from awares.protocol import TOOL_NAME, format_request, parse_turn
from awares.view import View, full_view
from awares.view_rule import RELATIVE, ViewRule

SYSTEM_PROMPT = (
    "You see a small version of an image and a question about it. If the small version is enough, "
    "reply with the answer only. If you need more detail, ask for the whole image in full "
    f"resolution by replying with one line and nothing else: {TOOL_NAME}: ['{CropId.ALL}']. "
    "You can ask once; then answer from what you have seen."
)


class WholeImage:
    """Answers any request with the whole image at full resolution (VisionThink, arXiv 2507.13348).

    The policy writes `GET_CROPS: ['all']`.

    Example:
        WholeImage().views(Request(("all",)), (112, 56))  # (View((0, 0, 112, 56)),)
    """

    system_prompt = SYSTEM_PROMPT
    regions: tuple[str, ...] = (CropId.ALL.value,)

    def __init__(self, max_turns: int = 2, rule: ViewRule = RELATIVE) -> None:
        self.max_turns, self._rule = max_turns, rule

    def first_view(self, size: Size) -> View:
        """Return the whole image at low resolution."""
        return self._rule.low(size)

    def parse(self, text: str) -> Parsed:
        """Parse one turn. A request for anything but the whole image is Malformed."""
        parsed = parse_turn(text)
        if isinstance(parsed, Request) and parsed.regions != self.regions:
            return Malformed("only the whole image is on offer")
        return parsed

    def write(self, request: Request) -> str:
        """Return the canonical text of the request."""
        return format_request(request.regions)

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """Return a view of the whole image, for any request."""
        return (full_view(size),)

    def cost(self, request: Request, size: Size) -> float:
        """Return 1, because every request takes the whole area of the image."""
        return 1.0

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """Return the request for the whole image."""
        return Request(self.regions)
