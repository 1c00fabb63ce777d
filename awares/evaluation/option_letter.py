"""Reads which option, A to D, a prediction names.

The benchmarks read it by different rules. `starred` and `extracted` are the published rules with
their faults; `letter` is a rule without them.
"""

import re

_STARRED = tuple(
    re.compile(rule, re.IGNORECASE)
    for rule in (
        r"^([A-D])",
        r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*[.)\]]",
        r"(?:^|\s)([A-D])(?:\s|$)",
    )
)


def starred(prediction: str) -> str | None:
    """Return the option that V*Bench reads, or None.

    The first matching rule decides. The first rule takes any text that starts with a letter from A
    to D, so that "Answer: B" is A and "Black" is B. If no rule matches, a single such letter within
    a word counts, so that "The bus" is B.
    """
    text = prediction.strip().upper()
    for rule in _STARRED:
        if match := rule.search(text):
            return match[1]
    letters = re.findall(r"[A-D]", text)
    return letters[0] if len(letters) == 1 else None


_ENDS = ",.!?;:'\""
_FORMS = tuple(
    re.compile(form)
    for form in (r"\(([A-D])\)", r"([A-D])\.", r"([A-D]):", r"([A-D])\)", r"([A-D]) ", r"([A-D])")
)
_SUBJECTS = "answer", "correct answer", "best answer", "correct option", "best option", "choice"
_PHRASES = (
    *(f"{the}{subject} is" for subject in (*_SUBJECTS, "correct choice") for the in ("", "the ")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


def extracted(prediction: str) -> str | None:
    """Return the option that RealWorldQA reads since 2026, or None.

    A letter at the start counts most, then one at the end, one after a phrase such as "the answer
    is", and one in the forms (A), A., A:, A) and A before a space. At last, any capital letter
    counts, so that "Black" is B. Within a form, the last letter counts. Small letters are not read.
    """
    text = prediction.strip()
    for end in _ENDS:
        text = text.strip(end)
    inner, text = text.strip(), f" {text} "
    if inner[:1] in _CAPITALS and not inner[1:2].isalpha():
        return inner[0]
    if inner[-1:] in _CAPITALS and not inner[-2:-1].isalpha():
        return inner[-1]
    if spoken := _after_phrases(text):
        return spoken
    found = (form.findall(text) for form in _FORMS)
    return next((letters[-1] for letters in found if letters), None)


_CAPITALS = frozenset("ABCD")


def _after_phrases(text: str) -> str | None:
    """Return the letter whose first place after a phrase is the last one, or None.

    The places in the lower-case text are used in `text` itself, as the published rule does.
    """
    small = text.lower()
    ends = [at + len(phrase) for phrase in _PHRASES if (at := small.find(phrase)) != -1]
    places = [(text.find(option, end), option) for end in ends for option in "ABCD"]
    place, option = max(places, default=(-1, ""))
    return option if place != -1 else None


_RULES = (
    re.compile(r"ANSWER\s*(?:IS|:)?\s*:?\s*\(?([A-D])\b"),
    re.compile(r"^\W*([A-D])\s*[).:,*\]]"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"(?:OPTION|CHOICE)\s*(?:IS|:)?\s*\(?([A-D])\b"),
    re.compile(r"^\W*([A-D])\W*$"),
    re.compile(r"\b([A-D])[.)](?:\s|$)"),
)
# A capital A before a word is an article, as in "A red car".
_ALONE = re.compile(r"\b([A-D])\b(?!(?<=A)\s+\w)")


def letter(prediction: str) -> str | None:
    """Return the option that a person reads, or None if the option is unclear.

    The first matching rule decides, in capital or small letters. If no rule matches, the text must
    contain exactly one of the capital letters as a separate word.
    """
    text = prediction.upper().strip()
    for rule in _RULES:
        if match := rule.search(text):
            return match[1]
    alone = set(_ALONE.findall(prediction))
    return alone.pop() if len(alone) == 1 else None
