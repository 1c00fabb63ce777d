"""Removes the reasoning that some models write before their answer."""

_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


def without_reasoning(text: str) -> str:
    """Remove `<think>...</think>`, `<analysis>...</analysis>` and surrounding spaces from the text.

    If a closing tag has no opening tag, all text before the closing tag is removed, too.

    Example:
        without_reasoning("<think>two cars</think> A")  # "A"
    """
    if "</" not in text:
        return text.strip()
    for opening, closing in _TAGS:
        text = _without(text, opening, closing)
    return text.strip()


def _without(text: str, opening: str, closing: str) -> str:
    while opening in text:
        before, _, rest = text.partition(opening)
        _, closed, after = rest.partition(closing)
        if not closed:
            return text
        text = before + after
    return text.rsplit(closing, 1)[-1]
