"""A question about an image, and what curation adds to it.

Curation labels whether the low-resolution view suffices. If it does not, curation also names the
regions that the policy should request.
"""

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
    reports group samples. `evidence` holds the boxes around the evidence for the answer, in pixels
    of the original image. Curation sets `label`. For an HR sample, curation also sets `crops`: the
    names of the regions that the policy should request. The environment defines these names.

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
