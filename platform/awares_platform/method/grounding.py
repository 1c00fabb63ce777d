"""Builds the configured grounding, and defines EndpointGrounding (paper, supplement 7.2).

EndpointGrounding asks a vision-language model for two kinds of boxes: around what the question
mentions, and around the places that show the answer.
"""

import asyncio
import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from PIL.Image import Image

from awares.crops import Box
from awares.errors import DataError
from awares.grounding import Grounding
from awares.sample import Sample
from awares.tokens import Size
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.method import seams
from awares_platform.method.asking import ask
from awares_platform.method.box_reply import DrawnBoxes, read_boxes
from awares_platform.method.box_units import (
    BoxUnit,
    admitted,
    batch_unit,
    inside,
    pixel_boxes,
    usual_unit,
)
from awares_platform.method.chat_client import ChatEndpoint, EndpointUsage, ReplyMemory
from awares_platform.method.prompt_file import GROUNDING, PromptText, built_in, grounding_prompt
from awares_platform.method.spoken import Unreadable

KEY = "curate.grounding"
BUILT_IN = {
    "annotations": "awares.grounding:Annotations",
    "endpoint": "awares_platform.method.grounding:EndpointGrounding",
}
IMAGE = "images/"
"""The prefix of an image's hash in a message.

The client replaces the hash by the image when it sends the message. The memory of replies therefore
gets no images.
"""
_BOXES = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
}
SCHEMA = {
    "type": "object",
    "properties": {"question": _BOXES, "answer": _BOXES},
    "required": ["question", "answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Located:
    """The evidence for one sample, in pixels of its image.

    `dropped` holds a reason for each unused box in the model's reply.

    Example:
        Located(((170, 440, 510, 880),), dropped=("[1, 2, 3] is not four numbers",))
    """

    boxes: tuple[Box, ...]
    dropped: tuple[str, ...] = ()


class EndpointGrounding:
    """A grounding that asks a vision-language model behind a chat endpoint.

    The model gets the pixels that the policy sees. `unit` is the unit of the model's coordinates.
    "auto" infers the unit from the replies (box_units.py).

    Example:
        async with EndpointGrounding(config.curate.grounding_endpoint, images) as grounding:
            boxes = await grounding.boxes(sample)
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        images: Callable[[str], Image],
        unit: str = "auto",
        replies: ReplyMemory | None = None,
        prompt: PromptText | None = None,
    ) -> None:
        self._endpoint = ChatEndpoint(endpoint, replies, self._filled)
        self._prompt = prompt or built_in(GROUNDING)
        self._images = images
        self._unit = None if unit == "auto" else BoxUnit(unit)
        self._usual = usual_unit(endpoint.model)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._endpoint.close()

    @property
    def usage(self) -> EndpointUsage:
        """The numbers of replies and of tokens so far."""
        return self._endpoint.usage

    async def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Return the evidence of one sample. The model's reply alone must show the boxes' unit."""
        [found] = await self.locate([sample])
        if isinstance(found, DataError):
            raise found
        return found.boxes

    async def locate(self, samples: Sequence[Sample]) -> list[Located | DataError]:
        """Return the evidence of each sample, or the reason why it has none.

        The model's replies about all samples together show the unit of the coordinates.
        """
        drawn = await asyncio.gather(*(self._draw(sample) for sample in samples))
        usable = [one for one in drawn if not isinstance(one, DataError)]
        units = batch_unit(usable, self._usual)
        return [one if isinstance(one, DataError) else self._placed(*one, units) for one in drawn]

    async def _draw(self, sample: Sample) -> tuple[DrawnBoxes, Size] | DataError:
        """Ask the model about one sample. Return its boxes and the image's size, or a fault."""
        try:
            image = await asyncio.to_thread(self._images, sample.image)
            return await self._ask(sample, image), image.size
        except DataError as error:
            return error

    async def _ask(self, sample: Sample, image: Image) -> DrawnBoxes:
        def read(reply: str | None) -> DrawnBoxes:
            return inside(read_boxes(reply), image.size)

        content = [
            {"type": "image_url", "image_url": {"url": f"{IMAGE}{sample.image}"}},
            {"type": "text", "text": self._prompt.fill({"question": sample.question})},
        ]
        return await ask(self._endpoint, [{"role": "user", "content": content}], read, SCHEMA)

    def _filled(self, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return `messages`, but replace the image's hash in the first message by the image."""
        first, *others = messages
        picture, text = first["content"]
        image = self._images(picture["image_url"]["url"].removeprefix(IMAGE))
        sent = {"type": "image_url", "image_url": {"url": _data_url(image)}}
        return [{**first, "content": [sent, text]}, *others]

    def _placed(
        self, drawn: DrawnBoxes, size: Size, units: Mapping[frozenset[BoxUnit], BoxUnit | None]
    ) -> Located | DataError:
        if not drawn.boxes:
            return Unreadable("nothing", "the oracle found nothing")
        kind = admitted(drawn.boxes, size)
        unit = units[kind] if self._unit is None else self._unit
        if unit is None or unit not in kind:
            return Unreadable("unit", _doubt(drawn, kind, self._unit))
        return Located(pixel_boxes(drawn, unit, size), drawn.dropped)


def _doubt(drawn: DrawnBoxes, kind: frozenset[BoxUnit], unit: BoxUnit | None) -> str:
    """Return the message for boxes whose unit is not clear."""
    boxes = ", ".join(str(list(box)) for box in drawn.boxes[:3])
    if unit is not None:
        return f"the oracle's boxes {boxes} cannot be {unit.value} (curate.grounding_unit)"
    found = ", or ".join(sorted(one.value for one in kind)) or "no unit"
    return f"the oracle's boxes {boxes} may be {found}: set curate.grounding_unit"


async def locate(grounding: Grounding, samples: Sequence[Sample]) -> list[Located | DataError]:
    """Return the evidence of each sample, or the reason why it has none."""
    if isinstance(grounding, EndpointGrounding):
        return await grounding.locate(samples)
    return list(await asyncio.gather(*(_located(grounding, sample) for sample in samples)))


async def _located(grounding: Grounding, sample: Sample) -> Located | DataError:
    try:
        return Located(await grounding.boxes(sample))
    except DataError as error:
        return error


def check_grounding(curate: CurateConfig) -> None:
    """Import the configured grounding and check its settings.

    Raises ConfigError if the grounding cannot be imported or does not take its settings.
    """
    seams.check(_reference(curate), KEY, _offered(curate, None), curate.grounding_settings)


def build_grounding(
    curate: CurateConfig, images: Callable[[str], Image], replies: ReplyMemory | None = None
) -> Grounding:
    """Build the configured grounding, with the memory of its earlier replies.

    `images` returns the image with a given content hash.

    Raises ConfigError if the grounding cannot be built.
    """
    offered = _offered(curate, images) | {"replies": replies}
    return seams.build(_reference(curate), Grounding, KEY, offered, curate.grounding_settings)


def _offered(curate: CurateConfig, images: Callable[[str], Image] | None) -> dict[str, object]:
    offered: dict[str, object] = {
        "endpoint": curate.grounding_endpoint,
        "images": images,
        "unit": curate.grounding_unit,
        "replies": None,
    }
    # Offer "prompt" only to the built-in grounding. Another one may use this name differently.
    own = {"prompt": grounding_prompt(curate)} if curate.grounding == "endpoint" else {}
    return offered | own


def _reference(curate: CurateConfig) -> str:
    return BUILT_IN.get(curate.grounding, curate.grounding)


def _data_url(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
