"""Parses requests for the ten crops in the forms that models really write, for serving.

Training uses the stricter `awares.protocol.parse_turn`. A call is the name GET_CROPS, in any
spelling, with its arguments:

    text --_plain--> ASCII punctuation, no tags or code fences --_marker--> before | call | after
        before   must be empty, or a lead-in such as "I need a closer look."
        call     has a bracketed list, or the bare names of regions up to the end of the line
        after    must be empty, another call, or an explanation such as "to read the sign"

A turn with an unreadable call is Malformed, never an answer.
"""

import re
import unicodedata

from awares.crops import CropId
from awares.environment import Answer, Malformed, Parsed, Request
from awares.protocol import crop_names, format_request

_MARKER = re.compile(
    r"(?<![A-Za-z])(?:"
    r"get\s*[_-]+\s*crops?|getcrops?|(?-i:GET +CROPS?)|get +crops?(?=[\"'`*]*\s*(?:[:=(\[{<]|->))"
    r")(?![A-Za-z])",
    re.IGNORECASE,
)
_QUOTES = str.maketrans("‘’‚‛“”„‟«»′″´【】", '\'\'\'\'""""""\'"\'[]')
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?(?:answer|tool_call|tool|function|response|crops?|s)>", re.IGNORECASE)
_FENCE = re.compile(r"```[ \t]*(?:python|json|text|plaintext|tool_code|tool_call)?", re.IGNORECASE)
_ROLE = re.compile(r"^\s*(?:assistant|model|ai)\s*(?::|\n)\s*", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([^\w\s]|_)")
_BULLET = re.compile(r"^[ \t]*(?:[-*\u2022]|\d+[.)])[ \t]+(?=\W*(?:get|[0-8]))", re.I | re.M)
_CONTROL = re.compile(r"<\|[a-z_]+\|>")

_QUOTED_LEAD = re.compile(
    r"\b(?:says?|said|reads|wrote|written|writes?|titled|labell?ed|displays?|prints?|printed|"
    r"states?|called|named|typed|contains?|shows?|answers?|without|unless|instead|if|example)\b|"
    r"\b(?:no|not|never|\w+n't)\b.{0,20}\b(?:need|necessary|ask|request|call|use|want|require)",
    re.IGNORECASE,
)
_LEAD_WORDS = 3
_ANNOUNCED = re.compile(
    r"(?:\W*(?:name|tool|function|action|answer|call|request|type|tool_calls?)\W*)+", re.IGNORECASE
)
_REASON = re.compile(
    r",?\s*\"(?:reason|reasoning|explanation|thought|rationale)\"\s*:\s*\"[^\"]*\"", re.IGNORECASE
)
_EXPLAINS = re.compile(
    r"[,;]?\s*(?:to|for|because|so|since|as|in order|please|which|where)\b|\s*(?:--?|#|//)\s",
    re.IGNORECASE,
)
_ANSWERS = re.compile(r"\banswers?\b|\bnot\b|\bor\b|\bbut\b|[\[\]{}]", re.IGNORECASE)
_LEADING = re.compile(r"[\s\"'`*]*(?:(?::|=|->|=>|-)[\s\"'`*:]*)?")
_KEY = re.compile(
    r"[\"']?(?:arguments|args|parameters|params|input|crops?|crop_?ids?|regions?|ids?|list)[\"']?"
    r"\s*(?:=|:)\s*",
    re.IGNORECASE,
)
_BRACKETS = {"[": "]", "(": ")", "{": "}", "<": ">"}
_SEPARATOR = re.compile(
    r"[,;/|&+\n\[\](){}<>]|(?<=[\s\"'])and(?=[\s\"'])|(?<=[\"'])\s+(?=[\"'])", re.IGNORECASE
)
_DECORATION = " \t\"'`*#."
_PAIR = re.compile(r"(.+?)\s*(?:=|:)\s*(.+)", re.DOTALL)
_LABEL = re.compile(
    r"^(?:the\s+)?(?:crop|region|id|part|no\.?|number)(?:[\s_#:.]+|(?=\d))", re.IGNORECASE
)
_KINDS = {
    "quarter": r"top left|top right|bottom left|bottom right",
    "half": r"top|bottom|left|right",
}
_NOUN = re.compile(r" (?:region|crop|part|area|side|view)$")
_SYNONYMS = {
    "full": "all",
    "full image": "all",
    "whole": "all",
    "whole image": "all",
    "entire image": "all",
    "all image": "all",
    "everything": "all",
    "middle": "center",
}
_AMBIGUOUS_IF_CUT = {CropId.TOP, CropId.BOTTOM, CropId.LEFT, CropId.RIGHT}
"""The crops whose names may be the start of a longer name, as "top" is of "top left"."""


class _Unreadable(Exception):
    """Raised with the reason why a call cannot be read."""


def mentions_request(text: str) -> bool:
    """Return whether the text contains the name GET_CROPS in any spelling.

    Example:
        mentions_request("getCrops(3)")  # True
    """
    return _marker(_plain(text)) is not None


def parse_lenient(text: str, *, allow_all: bool = True) -> Parsed:
    """Parse the decoded text of one assistant turn, and tolerate common mistakes. Never raises.

    If `allow_all` is false, a request for the whole image is Malformed.

    Example:
        parse_lenient("**GET_CROP**(['top left quarter'])")  # Request(("0",), canonical=False)
    """
    stripped = text.strip()
    plain = _plain(stripped)
    found = _marker(plain)
    if found is None:
        return Answer(_THOUGHT.sub("", stripped).strip())
    try:
        _check_lead(plain[: found.start()])
        crops = _calls(plain[found.end() :])
    except _Unreadable as error:
        return Malformed(str(error))
    if CropId.ALL in crops and not allow_all:
        return Malformed("the whole image is not on offer")
    regions = tuple(dict.fromkeys(crop.value for crop in crops))
    return Request(regions, canonical=stripped == format_request(regions))


def _plain(text: str) -> str:
    """Return `text` with ASCII punctuation, and without thoughts, tags, fences and special tokens.

    The function removes special tokens at the start of `text`, and cuts the text at the next one.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text.translate(_QUOTES)))
    text = _THOUGHT.sub("", _ESCAPED.sub(r"\1", text.replace("\\n", "\n")))
    while (control := _CONTROL.search(text)) and not text[: control.start()].strip():
        text = text[control.end() :]
    text = text[: control.start()] if control else text
    text = _REASON.sub("", text)
    text = _BULLET.sub("", _FENCE.sub("", _TAG.sub("", text)))
    return _ROLE.sub("", text).strip()


def _marker(plain: str) -> re.Match[str] | None:
    return _MARKER.search(plain)


def _check_lead(lead: str) -> None:
    """Raise _Unreadable unless the text before a call only announces the call."""
    text = lead.strip(" \t\n\"'`*{[(<:=,")
    if not text or _ANNOUNCED.fullmatch(text):
        return
    announced = re.search(r"[.:!\n-][\s\"'`*]*$", lead)
    if not announced or _QUOTED_LEAD.search(text) or len(text.split()) < _LEAD_WORDS:
        raise _Unreadable("text before the request")


def _calls(rest: str) -> list[CropId]:
    """Return the crops of all calls in `rest`.

    `rest` is the text after the name of the first call, so it begins with the call's arguments.
    """
    crops, after = _arguments(rest)
    following = _marker(after)
    if following is None:
        _check_after(after, crops)
        return crops
    if not re.fullmatch(r"[\s,;.\"'`*{(\[&]*(?:and)?[\s\"'`*{(\[]*", after[: following.start()]):
        raise _Unreadable("text between two requests")
    return crops + _calls(after[following.end() :])


def _check_after(after: str, crops: list[CropId]) -> None:
    """Raise _Unreadable unless the text after a call only explains the call."""
    text = after.strip(" \t\n\"'`*]})>.,;")
    if not text:
        return
    inside = re.fullmatch(r"\(([^()]*)\)?", after.strip(" \t\n\"'`*.") or "")
    if inside and (named := _crop(inside[1])) is not None:
        if [named] == crops:
            return
        raise _Unreadable("the text after the request names another region")
    if _ANSWERS.search(text) or not (inside or _EXPLAINS.match(after.lstrip("\"'`*]})>."))):
        raise _Unreadable("text after the request")


def _arguments(rest: str) -> tuple[list[CropId], str]:
    """Return the crops that the arguments of one call name, and the text after the arguments."""
    start = _skip(rest)
    if rest[start : start + 1] in _BRACKETS:
        inside, after, closed = _bracketed(rest, start)
        crops = _items(inside, closed)
        while (joined := re.match(r"\s*(?:,|and|&)?\s*(?=\[)", after)) and closed:
            inside, after, closed = _bracketed(after, joined.end())
            crops += _items(inside, closed)
        return crops, after
    line, newline, after = rest[start:].partition("\n")
    following = _marker(line)
    end = following.start() if following else len(line)
    return _items(line[:end], closed=True), line[end:] + newline + after


def _skip(rest: str) -> int:
    """Return the position after the colon and after keys, such as `args`, that precede a list."""
    found = _LEADING.match(rest)
    start = found.end() if found else 0
    opened = re.compile(r"[,\s\"']*(?=[\"']?(?:arguments|args|parameters|params|input)\b)")
    if later := opened.match(rest, start):
        start = later.end()
    while key := _KEY.match(rest, start):
        start = key.end()
    return start


def _bracketed(text: str, start: int) -> tuple[str, str, bool]:
    """Return the text inside the bracket at `start`, the text after it, and whether it is closed.

    Any kind of bracket closes any other kind, because models mix up the kinds.
    """
    depth = 0
    for index in range(start, len(text)):
        if text[index] in _BRACKETS:
            depth += 1
        elif text[index] in _BRACKETS.values():
            depth -= 1
            if depth == 0:
                return text[start + 1 : index], text[index + 1 :], True
    return text[start + 1 :], "", False


def _items(inside: str, closed: bool) -> list[CropId]:
    """Return the crops of a list's items. `closed` is true if the list has a closing bracket.

    Raises _Unreadable if an item is missing, empty, unknown, or possibly cut off.
    """
    if re.search(r"\.\.|''|\"\"", inside):
        raise _Unreadable("an item of the list is empty")
    items = [item for item in _SEPARATOR.split(_without_keys(inside)) if item.strip(" \t'\"`")]
    crops: list[CropId] = []
    for item in items:
        found = _named(item)
        if not found:
            raise _Unreadable(f"unknown region in [{inside.strip()[:40]}]")
        crops += found
    if not crops:
        raise _Unreadable("no list of regions")
    cut = not closed and not re.search(r"[\"'`,\])]\s*$", inside)
    if cut and crops[-1] in _AMBIGUOUS_IF_CUT and not items[-1].strip(_DECORATION).isdigit():
        raise _Unreadable("the list ends within a name")
    return crops


def _without_keys(inside: str) -> str:
    """Return the content of a list without keys such as `crops=` in front of its values."""
    return re.sub(rf"(?:^|(?<=[\s{{(,])){_KEY.pattern}(?=[\[({{\"'\d])", "", inside, flags=re.I)


def _named(item: str) -> list[CropId]:
    """Return the crops that one item names. The result is empty if the item names no crop.

    Only an item of several digits, with spaces between them, names more than one crop.
    """
    text = item.strip(_DECORATION)
    if re.fullmatch(r"[0-8](?:\s+[0-8])+", text):
        return [CropId(digit) for digit in text.split()]
    if (crop := _crop(text)) is not None:
        return [crop]
    # An item may state a region twice, such as by its id and its name: "5: top half".
    pair = _PAIR.fullmatch(text) or re.fullmatch(r"([0-8])\s+(?:-\s*)?(\D+)", text)
    crops = {_crop(part) for part in pair.groups()} if pair else {None}
    return [crop for crop in crops if crop is not None] if len(crops) == 1 else []


def _crop(item: str) -> CropId | None:
    """Return the crop that a text names by its id or by its name, or None."""
    text = _LABEL.sub("", item.strip(_DECORATION)).strip(_DECORATION)
    words = re.sub(r"[\s_-]+", " ", text.lower()).removeprefix("the ")
    if re.fullmatch(r"-.*|.*-\d.*", text):
        return None
    words = re.sub(r"\b(top|bottom|upper|lower)(left|right)\b", r"\1 \2", words)
    words = words.replace("upper", "top").replace("lower", "bottom")
    words = re.sub(r"^(left|right) (top|bottom)\b", r"\2 \1", words)
    for kind, names in _KINDS.items():
        words = re.sub(rf"^({names}) {kind}$", r"\1", words)
    words = re.sub(r"^((?:top|bottom) (?:left|right)) (?:corner|quadrant)$", r"\1", words)
    words = _NOUN.sub("", words)
    return crop_names().get(_SYNONYMS.get(words, words))
