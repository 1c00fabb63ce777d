"""Removes the reasoning that some models write before their answer."""

_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


def without_reasoning(text: str) -> str:
    """Return the text without `<think>...</think>` and `<analysis>...</analysis>`, and stripped.

    If only a closing tag is left, the text before the last one is reasoning, too: some chat
    templates put the opening tag into the prompt. Reasoning that is never closed stays.

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
