"""The grammar of the ten crops: a turn is an answer, or a request like `GET_CROPS: ['0', '5']`.

The parser also accepts other spaces and quotes, and names such as top-left. A turn with GET_CROPS
that is not exactly one request is Malformed: the parser never guesses.
"""

import re
from collections.abc import Iterable, Mapping

from awares.crops import CropId
from awares.environment import Answer, Malformed, Parsed, Request

TOOL_NAME = "GET_CROPS"

SYSTEM_PROMPT = (
    "You see a small version of an image and a question about it. If the small version is enough, "
    "reply with the answer only. If you need more detail, ask for regions in full resolution by "
    "replying with one line and nothing else, for example GET_CROPS: ['0', '5']. Regions: 0 "
    "top-left quarter, 1 top-right quarter, 2 bottom-left quarter, 3 bottom-right quarter, 4 "
    "center, 5 top half, 6 bottom half, 7 left half, 8 right half, all the whole image. Ask for as "
    "little as will do. You can ask once; then answer from what you have seen."
)

_NAMES = {
    "top left": CropId.TOP_LEFT,
    "top right": CropId.TOP_RIGHT,
    "bottom left": CropId.BOTTOM_LEFT,
    "bottom right": CropId.BOTTOM_RIGHT,
    "center": CropId.CENTER,
    "centre": CropId.CENTER,
    "top": CropId.TOP,
    "top half": CropId.TOP,
    "bottom": CropId.BOTTOM,
    "bottom half": CropId.BOTTOM,
    "left": CropId.LEFT,
    "left half": CropId.LEFT,
    "right": CropId.RIGHT,
    "right half": CropId.RIGHT,
}
_BY_TEXT = {crop.value: crop for crop in CropId} | _NAMES
_MARKER = re.compile(TOOL_NAME, re.IGNORECASE)
_REQUEST = re.compile(rf"{TOOL_NAME}\s*:?\s*\[([^\[\]]*)\](.*)", re.IGNORECASE | re.DOTALL)
_ITEM = re.compile(r"""(['"]?)([^'"]*)\1""")


def format_request(crops: Iterable[str]) -> str:
    """Return the canonical text of a request for `crops`, which must not be empty."""
    listed = ", ".join(f"'{crop}'" for crop in crops)
    assert listed, "a request names at least one crop"
    return f"{TOOL_NAME}: [{listed}]"


def parse_turn(text: str, *, allow_all: bool = True) -> Parsed:
    """Parse the decoded text of one assistant turn, without special tokens. Never raises.

    If `allow_all` is false, a request for the whole image is Malformed.

    Example:
        parse_turn("get_crops[top-left, 5]")  # Request(("0", "5"), canonical=False)
    """
    stripped = text.strip()
    if not _MARKER.search(stripped):
        return Answer(stripped)
    match = _REQUEST.match(stripped)
    if match is None:
        return Malformed(_diagnose(stripped))
    if match[2].strip():
        return Malformed("text after the request")
    items = [_crop(item) for item in match[1].split(",")]
    crops = tuple(dict.fromkeys(crop for crop in items if crop is not None))
    if None in items:
        return Malformed(f"unknown region in [{match[1].strip()[:40]}]")
    if CropId.ALL in crops and not allow_all:
        return Malformed("the whole image is not on offer")
    regions = tuple(crop.value for crop in crops)
    return Request(regions, canonical=stripped == format_request(regions))


def _diagnose(text: str) -> str:
    """Return why `text`, which contains GET_CROPS, does not match the grammar."""
    if not _MARKER.match(text):
        return "text before the request"
    return "no list of regions" if "[" not in text else "the list of regions is not readable"


def _crop(item: str) -> CropId | None:
    """Return the crop that one list item names, or None if the item names no crop.

    A numeric id is one ASCII digit, so "00" and "10" name no crop.
    """
    match = _ITEM.fullmatch(item.strip())
    if match is None:
        return None
    words = re.sub(r"[\s_-]+", " ", match[2].strip().lower())
    return _BY_TEXT.get(words)


def crop_names() -> Mapping[str, CropId]:
    """Return a map from each id and each name of a crop to the crop.

    The names are in lower case, with single spaces.
    """
    return _BY_TEXT
