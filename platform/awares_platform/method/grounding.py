"""Builds the configured grounding, and defines EndpointGrounding (paper, supplement 7.2).

A grounding locates the evidence for an answer in the image. EndpointGrounding asks a
vision-language model, which is called the oracle. The oracle locates the elements that the question
mentions, and the places where the answer can be read.
"""

import ast
import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

from PIL.Image import Image

from awares.crops import Box
from awares.errors import DataError
from awares.grounding import Grounding
from awares.sample import Sample
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.method import seams
from awares_platform.method.chat_client import ChatEndpoint

KEY = "curate.grounding"
BUILT_IN = {
    "annotations": "awares.grounding:Annotations",
    "endpoint": "awares_platform.method.grounding:EndpointGrounding",
}
# The oracle's coordinates run from 0 to SCALE over the width, and over the height.
SCALE = 1000
# The largest number of characters in a reply. A longer reply is refused.
LONGEST_REPLY = 20_000
INSTRUCTIONS = """\
Locate the evidence for a question about this image. Give two lists of boxes: "question" for every \
element that the
question mentions, "answer" for every place where the answer can be read off. Each box is \
[left, top, right, bottom],
normalised to 0-1000 over the image's width and height, as tight as possible; several boxes per \
list are fine, and so
is an empty list. Reply with one Python dictionary and nothing else:
{"question": [[left, top, right, bottom], ...], "answer": [[left, top, right, bottom], ...]}"""


class EndpointGrounding:
    """A grounding that asks a vision-language model behind a chat endpoint.

    The model gets the decoded image, upright and in RGB. The boxes in the model's reply therefore
    refer to the pixels that the policy sees.

    Example:
        async with EndpointGrounding(config.curate.grounding_endpoint, images) as grounding:
            boxes = await grounding.boxes(sample)
    """

    def __init__(self, endpoint: EndpointConfig, images: Callable[[str], Image]) -> None:
        self._endpoint = ChatEndpoint(endpoint)
        self._images = images

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._endpoint.close()

    async def boxes(self, sample: Sample) -> tuple[Box, ...]:
        image = self._images(sample.image)
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
            {"type": "text", "text": f"{INSTRUCTIONS}\n\nQuestion: {sample.question}"},
        ]
        reply = await self._endpoint.complete([{"role": "user", "content": content}])
        return pixel_boxes(parse_boxes(reply), image.size)


def check_grounding(curate: CurateConfig) -> None:
    """Import the configured grounding and check its settings.

    Raises ConfigError if the grounding cannot be imported or does not take its settings.
    """
    offered = {"endpoint": curate.grounding_endpoint, "images": None}
    seams.check(_reference(curate), KEY, offered, curate.grounding_settings)


def build_grounding(curate: CurateConfig, images: Callable[[str], Image]) -> Grounding:
    """Build the configured grounding. `images` returns the image with a given content hash.

    Raises ConfigError if the grounding cannot be built.
    """
    offered = {"endpoint": curate.grounding_endpoint, "images": images}
    return seams.build(_reference(curate), Grounding, KEY, offered, curate.grounding_settings)


def _reference(curate: CurateConfig) -> str:
    return BUILT_IN.get(curate.grounding, curate.grounding)


def _data_url(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def parse_boxes(text: str) -> list[tuple[float, float, float, float]]:
    """Return all boxes of an oracle's reply, in the oracle's coordinates.

    The reply is JSON or a Python literal, with or without a code fence. Code in the reply is never
    run. Raises DataError if the reply is too long, or if it has no dictionary or no box. Raises
    DataError if a box is not four finite numbers.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start or len(text) > LONGEST_REPLY:
        raise DataError(f"the oracle's reply holds no dictionary: {text[:80]!r}")
    found = _literal(text[start : end + 1])
    if not isinstance(found, dict):
        raise DataError(f"the oracle's reply is no dictionary: {text[:80]!r}")
    boxes = [_numbers(box) for name in ("question", "answer") for box in _list(found.get(name))]
    if not boxes:
        raise DataError(f"the oracle found nothing: {text[:80]!r}")
    return boxes


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(f"the oracle's reply does not parse: {text[:80]!r}") from error


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise DataError(f"the oracle's boxes are no list: {value!r}"[:120])
    single = len(value) == 4 and all(isinstance(edge, int | float) for edge in value)
    return [value] if single else list(value)


def _numbers(box: Any) -> tuple[float, float, float, float]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise DataError(f"the oracle's box is not four numbers: {box!r}"[:120])
    if not all(
        isinstance(edge, int | float) and not isinstance(edge, bool) and math.isfinite(edge)
        for edge in box
    ):
        raise DataError(f"the oracle's box is not four numbers: {box!r}"[:120])
    left, top, right, bottom = box
    return left, top, right, bottom


def pixel_boxes(
    boxes: Sequence[tuple[float, float, float, float]], size: tuple[int, int]
) -> tuple[Box, ...]:
    """Convert `boxes` to pixels of an image of `size` (width, height).

    The boxes come from the oracle, the model that EndpointGrounding asks. Their coordinates run
    from 0 to SCALE, and their corners may come in any order. The function clamps each box to the
    image, and makes it at least one pixel wide and high.
    """
    spans = [(_span(x0, x1, size[0]), _span(y0, y1, size[1])) for x0, y0, x1, y1 in boxes]
    return tuple((left, top, right, bottom) for (left, right), (top, bottom) in spans)


def _span(first: float, second: float, length: int) -> tuple[int, int]:
    low, high = sorted((first / SCALE, second / SCALE))
    start = min(max(math.floor(low * length), 0), length - 1)
    return start, max(min(math.ceil(high * length), length), start + 1)
