"""The environment of the paper: a half-size view first, then any of ten crops on request."""

from collections.abc import Sequence
from dataclasses import dataclass

from awares.crops import Box, CropId, CropMapping, area_fraction, target_crops
from awares.environment import Parsed, Request, Size
from awares.protocol import SYSTEM_PROMPT, format_request, parse_turn
from awares.view import View, crop_view

PAPER_IOU = 0.5
"""The least IoU of the paper's literal mapping (supplement 7.3)."""


@dataclass(frozen=True, slots=True)
class TenCrops:
    """The ten crops, asked for as `GET_CROPS: ['0', '5']` (paper, section 3.1).

    `allow_all` false refuses the whole image, `max_crops` bounds the crops of one request.
    `mapping` turns evidence boxes into target crops, see `awares.crops.target_crops`;
    `coverage_tau` is the share of each box that a crop must hold.

    Example:
        TenCrops(allow_all=False).parse("GET_CROPS: ['0']")  # Request(("0",))
    """

    allow_all: bool = True
    max_crops: int = len(CropId)
    mapping: CropMapping = "min_cover"
    coverage_tau: float = 0.9
    max_turns: int = 2

    @property
    def system_prompt(self) -> str:
        """The prompt that explains the grammar of `awares.protocol`."""
        return SYSTEM_PROMPT

    @property
    def regions(self) -> tuple[str, ...]:
        """The ids of the ten crops."""
        return tuple(crop.value for crop in CropId)

    def first_view(self, size: Size) -> View:
        """The whole image at low resolution."""
        return View()

    def parse(self, text: str) -> Parsed:
        """Read one turn, see `awares.protocol.parse_turn`."""
        return parse_turn(text, allow_all=self.allow_all, max_crops=self.max_crops)

    def write(self, request: Request) -> str:
        """The request as the policy learns to write it."""
        return format_request(request.regions)

    def views(self, request: Request, size: Size) -> tuple[View, ...]:
        """One view per crop, at native pixels."""
        return tuple(crop_view(CropId(region), size) for region in request.regions)

    def cost(self, request: Request, size: Size) -> float:
        """The crops' nominal shares of the image, summed."""
        return area_fraction([CropId(region) for region in request.regions])

    def cover(self, boxes: Sequence[Box], size: Size) -> Request | None:
        """The crops that hold the evidence by `mapping`; None if `iou` finds no crop."""
        tau = PAPER_IOU if self.mapping == "iou" else self.coverage_tau
        crops = target_crops(boxes, size, self.mapping, tau=tau, allow_all=self.allow_all)
        return Request(tuple(crop.value for crop in crops)) if crops else None


TEN_CROPS = TenCrops()
"""The ten crops with the paper's settings."""
