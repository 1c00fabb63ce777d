"""The environment of the paper: the policy sees a low-resolution view and may request crops."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from awares.crops import Box, CropId, CropMapping, area_fraction, target_crops
from awares.environment import Parsed, Request, Size
from awares.lenient import parse_lenient
from awares.protocol import SYSTEM_PROMPT, format_request, parse_turn
from awares.view import View, full_view
from awares.view_rule import RELATIVE, ViewRule

SMALL_SIDE = 100
"""The authors' script shows no crops of an image with a side below this number of pixels."""

SmallImages = Literal["crops", "whole"]
"""What a request returns for an image with a side below `SMALL_SIDE`: crops or the whole image."""

PAPER_IOU = 0.5
"""The smallest IoU with the evidence at which the paper's rule selects a crop (supplement 7.3)."""


@dataclass(frozen=True, slots=True)
class TenCrops:
    """Offers the ten crops. A request is `GET_CROPS: ['0', '5']`, for example (paper, section 3.1).

    Example:
        TenCrops(allow_all=False).parse("GET_CROPS: ['0']")  # Request(("0",))
    """

    allow_all: bool = True
    """Whether the policy may request the whole image."""
    mapping: CropMapping = "min_cover"
    """The rule by which `awares.crops.target_crops` maps evidence boxes to target crops."""
    coverage_tau: float = 0.9
    """The share of a box's area that a crop must contain to cover the box."""
    max_turns: int = 2
    small_images: SmallImages = "crops"
    """If "whole", any request returns the whole of an image with a side below 100 pixels.

    The authors' script does so. "crops" treats a small image like any other image.
    """
    rule: ViewRule = RELATIVE
    """Chooses the resolution of the views."""

    @property
    def system_prompt(self) -> str:
        """The system message that explains the grammar of `awares.protocol`."""
        return SYSTEM_PROMPT

    @property
    def regions(self) -> tuple[str, ...]:
        """The ids of the ten crops."""
        return tuple(crop.value for crop in CropId)

    def first_view(self, size: Size) -> View:
        """Return the whole image at low resolution."""
        return self.rule.low(size)

    def parse(self, text: str) -> Parsed:
        """Parse one turn with `awares.protocol.parse_turn`."""
        return parse_turn(text, allow_all=self.allow_all)

    def parse_lenient(self, text: str) -> Parsed:
        """Parse one turn with `awares.lenient.parse_lenient`, as serving does."""
        return parse_lenient(text, allow_all=self.allow_all)

    def write(self, request: Request) -> str:
        """Return the text of the request, as the policy learns to write it."""
        return format_request(request.regions)

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """Return one view per crop.

        For a small image, return one view of the whole image if `small_images` is "whole".
        """
        if self._returns_whole(size):
            return (full_view(size),)
        return tuple(self.rule.crop(CropId(region), size) for region in request.regions)

    def cost(self, request: Request, size: Size) -> float:
        """Return the share of the image's area that the request costs.

        The share is 1 if `views` returns the whole of a small image. Otherwise
        `awares.crops.area_fraction` computes it.
        """
        if self._returns_whole(size):
            return 1.0
        return area_fraction([CropId(region) for region in request.regions])

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """Return the request for the crops that the rule `mapping` selects for evidence `boxes`.

        The result is None if the rule selects no crop. The rule "min_cover" always selects one.
        """
        tau = PAPER_IOU if self.mapping == "iou" else self.coverage_tau
        crops = target_crops(boxes, size, self.mapping, tau=tau, allow_all=self.allow_all)
        return Request(tuple(crop.value for crop in crops)) if crops else None

    def _returns_whole(self, size: Size) -> bool:
        return self.small_images == "whole" and min(size) < SMALL_SIDE


TEN_CROPS = TenCrops()
"""The environment of the ten crops with its default settings."""
