"""A grounding finds where in an image the evidence for an answer is (paper, supplement 7.2)."""

from typing import Protocol

from awares.crops import Box
from awares.errors import DataError
from awares.sample import Sample


class Grounding(Protocol):
    """Finds the boxes that hold the evidence for an answer, in pixels of the original image.

    Curation calls `boxes` for many HR samples concurrently. `boxes` raises DataError if a sample
    cannot be grounded, and the sample then gets no label. A grounding may be an async context
    manager. Curation then enters it before the first call and leaves it after the last one.

    To use a grounding of your own, set `curate.grounding = "module:attribute"`. The attribute is
    called with all settings of the table [curate.grounding_settings]. It also gets the following
    arguments, if its signature names them:

    - `endpoint` is the table [curate.grounding_endpoint].
    - `images` is a function that returns the pixels of a sample's `image`.

    Example:
        class WholeImage:
            def __init__(self, images):
                self._images = images

            async def boxes(self, sample):
                return ((0, 0, *self._images(sample.image).size),)
    """

    async def boxes(self, sample: Sample) -> tuple[Box, ...]: ...


class Annotations:
    """A grounding for annotated data, which returns the evidence boxes of the sample itself.

    Example:
        await Annotations().boxes(sample)  # ((4, 4, 34, 34),)
    """

    async def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Return `sample.evidence`. Raises DataError if it is empty."""
        if not sample.evidence:
            raise DataError(
                f"sample {sample.sample_id} has no evidence boxes: "
                'set curate.grounding = "endpoint", or annotate it'
            )
        return sample.evidence
