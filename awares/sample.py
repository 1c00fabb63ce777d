"""A question about an image, with what curation knows of it."""

from dataclasses import dataclass
from enum import StrEnum

from awares.crops import Box, CropId


class Label(StrEnum):
    """Whether the low-resolution view suffices (paper, section 3.2)."""

    LR = "LR"
    HR = "HR"


@dataclass(frozen=True, slots=True)
class Sample:
    """One question.

    `image` is the hex SHA-256 of the image file's bytes; `evidence` are boxes in pixels of the original image; `label`
    and `crops` (the target crops of an HR sample) are None and empty until curation has run.

    Example:
        Sample("mini/train/17", "9f2c...", "digit on the red circle?", "7", kind="digit", evidence=((4, 4, 34, 34),))
    """

    sample_id: str
    image: str
    question: str
    answer: str
    kind: str = ""
    evidence: tuple[Box, ...] = ()
    label: Label | None = None
    crops: tuple[CropId, ...] = ()
