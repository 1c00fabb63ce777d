"""Reads which option, A to D, a prediction names.

`starred` (V*Bench) and `extracted` (RealWorldQA) keep the faults of lmms-eval. `letter` is a rule
of this project without these faults.
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
    """Return the option that lmms-eval reads for V*Bench, or None.

    The first matching rule decides. A text that starts with a letter from A to D names this letter,
    so "Black" is B.
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
    """Return the option that lmms-eval reads for RealWorldQA since 2026, or None.

    The first rule that finds a capital letter from A to D decides:

    - The letter stands alone at the start, or else at the end.
    - The letter follows a phrase such as "the answer is".
    - The letter occurs as (A), A., A:, A), A before a space, or any other A. An earlier form in
      this list wins over a later form. Of one form, the last occurrence counts.
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
    """Return the option that occurs last in `text` after a phrase, or None.

    The function looks only at the first occurrence of each phrase, and at the first occurrence of
    each option after it.
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
    """Return the option that a human reader understands, or None if the option is unclear.

    The first matching rule decides. If no rule matches, the text must contain exactly one of the
    words A, B, C and D.
    """
    text = prediction.upper().strip()
    for rule in _RULES:
        if match := rule.search(text):
            return match[1]
    alone = set(_ALONE.findall(prediction))
    return alone.pop() if len(alone) == 1 else None
