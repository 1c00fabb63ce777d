"""A question about an image, with the label and the target request that curation adds."""

from dataclasses import dataclass
from enum import StrEnum

from awares.crops import Box


class Label(StrEnum):
    """Whether the low-resolution view suffices (LR) or not (HR); see section 3.2 of the paper."""

    LR = "LR"
    HR = "HR"


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image.

    `image` is the hex SHA-256 of the image file's bytes. `kind` is the kind of question, by which
    reports group samples. `evidence` holds boxes in pixels of the original image. Curation sets
    `label`. For an HR sample, curation also sets `crops`: the regions of the target request, by
    their names in the environment.

    Example:
        Sample("mini/train/17", "9f2c...", "digit on the red circle?", "7", label=Label.LR)
    """

    sample_id: str
    image: str
    question: str
    answer: str
    kind: str = ""
    evidence: tuple[Box, ...] = ()
    label: Label | None = None
    crops: tuple[str, ...] = ()
