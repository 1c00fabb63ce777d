"""Grounding: where in an image the evidence for an answer lies (paper, supplement 7.2)."""

from typing import Protocol

from awares.crops import Box
from awares.errors import DataError
from awares.sample import Sample


class Grounding(Protocol):
    """Finds the boxes that a question needs, in pixels of the original image.

    Curation calls it for HR samples, many at a time. It raises DataError for a sample that cannot
    be grounded, which then gets no label. A grounding that is an async context manager is entered
    before its first call and left after its last one.

    Name your own as `curate.grounding = "module:attribute"`. It is called with the table
    [curate.grounding_settings] and with those of these arguments that its signature names:
    `endpoint`, the configuration's grounding_endpoint, and `images`, a function from a sample's
    image to its pixels.

    Example:
        class WholeImage:
            def __init__(self, images):
                self._images = images

            async def boxes(self, sample):
                return ((0, 0, *self._images(sample.image).size),)
    """

    async def boxes(self, sample: Sample) -> tuple[Box, ...]: ...


class Annotations:
    """The grounding of annotated data: the sample's own evidence boxes.

    Example:
        await Annotations().boxes(sample)  # ((4, 4, 34, 34),)
    """

    async def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Raises DataError for a sample without evidence boxes."""
        if not sample.evidence:
            raise DataError(
                f"sample {sample.sample_id} has no evidence boxes: "
                'set curate.grounding = "endpoint", or annotate it'
            )
        return sample.evidence
