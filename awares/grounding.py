"""A grounding finds where in an image the evidence for an answer is (paper, supplement 7.2)."""

from typing import Protocol

from awares.crops import Box
from awares.errors import DataError
from awares.sample import Sample


class Grounding(Protocol):
    """Finds the boxes that hold the evidence for an answer, in pixels of the original image.

    Curation calls `boxes` concurrently for many HR samples. If `boxes` raises DataError, the sample
    gets no label. If a grounding is an async context manager, curation makes all calls inside it.

    To use a grounding of your own, set `curate.grounding = "module:attribute"`. Curation calls this
    attribute with all settings of the table [curate.grounding_settings], and with these parameters
    if its signature has them:

    - `endpoint` is the table [curate.grounding_endpoint].
    - `images` is a function that returns the decoded image for the hash `Sample.image`.

    Example:
        class WholeImage:
            def __init__(self, images):
                self._images = images

            async def boxes(self, sample):
                return ((0, 0, *self._images(sample.image).size),)
    """

    async def boxes(self, sample: Sample) -> tuple[Box, ...]: ...


class Annotations:
    """A grounding for annotated data. It returns the evidence boxes that the sample holds.

    Example:
        await Annotations().boxes(sample)  # ((4, 4, 34, 34),)
    """

    async def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Return `sample.evidence`. Raises DataError if the sample has no evidence boxes."""
        if not sample.evidence:
            raise DataError(
                f"sample {sample.sample_id} has no evidence boxes: "
                'set curate.grounding = "endpoint", or annotate it'
            )
        return sample.evidence
