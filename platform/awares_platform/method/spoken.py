"""Separates what a model replies from what it thinks, and recognises a refusal.

"<think>41 or 42?</think>\n2"  ->  "2"
"""

import re

from awares.errors import DataError

_TAGS = "think|thinking|thought|reasoning"
_CLOSED = re.compile(rf"</(?:{_TAGS})>", re.IGNORECASE)
_OPENED = re.compile(rf"<(?:{_TAGS})>", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:i|we)(?: am|'m| are|'re)? (?:can(?:not|'t| not)|unable to|not able to|won't|will not)\b"
    r"|\b(?:i'm|i am) (?:sorry|afraid)\b|\bas an ai\b",
    re.IGNORECASE,
)
_SHOWN = 80
_FULL_WIDTH = {0xFF10 + digit: str(digit) for digit in range(10)}


class Unreadable(DataError):
    """Raised if a reply does not have the form that the question asks for.

    `reason` names the kind of reply, such as "refusal". Curation counts the lost samples by reason.

    Example:
        Unreadable("refusal", "the judge refuses: \"I'm sorry\"")
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class Unpaid(DataError):
    """Raised for a question that is not asked because the budget for replies is spent.

    Example:
        Unpaid("curate.budget=5 is spent")
    """

    reason = "budget"


def spoken(reply: str | None, who: str) -> str:
    """Return the text of a reply after the model's thoughts, with ASCII digits.

    `who` names the model in messages, such as "judge". Raises Unreadable if the reply is empty or
    ends within a thought.
    """
    text = (reply or "").translate(_FULL_WIDTH)
    closed = list(_CLOSED.finditer(text))
    text = text[closed[-1].end() :] if closed else text
    if _OPENED.search(text):
        raise Unreadable(
            "thought", f"the {who}'s reply ends within a thought: raise max_tokens of its endpoint"
        )
    if not text.strip():
        raise Unreadable("empty", f"the {who}'s reply is empty")
    return text.strip()


def unreadable(text: str, who: str, wanted: str) -> Unreadable:
    """Return the error for a reply that is not what `wanted` describes.

    The error's reason is "refusal" or "form".
    """
    apostrophes = text.replace("\u2019", "'")
    if _REFUSAL.search(apostrophes):
        return Unreadable("refusal", f"the {who} refuses: {text[:_SHOWN]!r}")
    return Unreadable("form", f"the {who}'s reply is not {wanted}: {text[:_SHOWN]!r}")
