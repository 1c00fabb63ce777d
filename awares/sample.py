"""A question about an image, and what curation adds to it.

Curation labels whether the low-resolution view suffices. If it does not, curation also names the
regions that the policy should request.
"""

from dataclasses import dataclass, fields
from enum import StrEnum

from awares.carried import Carried
from awares.crops import Box


class Label(StrEnum):
    """LR if the low-resolution view suffices for the answer, and otherwise HR (section 3.2)."""

    LR = "LR"
    HR = "HR"


_LATER = ("further_answers", "scorer")
"""Fields that older versions of awares lack. `__repr__` leaves out such a field if it is empty."""


@dataclass(frozen=True, slots=True, repr=False)
class Sample(Carried):
    """One question about one image.

    Example:
        Sample("mini/train/17", "9f2c...", "digit on the red circle?", "7", label=Label.LR)
    """

    sample_id: str
    image: str
    """The hex SHA-256 of the image file's bytes."""
    question: str
    answer: str
    """The answer that demonstrations give."""
    kind: str = ""
    """The kind of question, by which reports group samples."""
    evidence: tuple[Box, ...] = ()
    """Boxes around the evidence for the answer, in pixels of the original image."""
    label: Label | None = None
    """LR or HR, set by curation."""
    crops: tuple[str, ...] = ()
    """The regions that the policy should request, set by curation for an HR sample."""
    further_answers: tuple[str, ...] = ()
    """Other answers that are right as well."""
    scorer: str = ""
    """A name in `awares.evaluation.scorers`, or "" for the one in the setting `evaluate.scorer`."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All accepted answers."""
        return self.answer, *self.further_answers

    def __repr__(self) -> str:
        # Stored digests of samples are computed from this text, so the text of an old sample must
        # never change. A later field therefore appears only if it is set.
        shown = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) or field.name not in _LATER
        ]
        return f"Sample({', '.join(shown)})"
