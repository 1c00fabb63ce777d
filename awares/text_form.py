"""Normalises texts, so that texts that look the same are equal.

Such texts can differ in the characters of an accent, in widths, or in invisible characters.
Unicode's NFKC would change the meaning: it turns 10² into 102.
"""

import re
import unicodedata

_WIDE = ("<wide>", "<narrow>")
"""Unicode's tags of the characters that differ from an ordinary character only in their width."""
_LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_INVISIBLE = str.maketrans(
    "",
    "",
    "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
)
"""Soft hyphens, joiners, marks of the writing direction and byte order marks."""


def one_form(text: str, *, fold_width: bool = True) -> str:
    """Return the text with composed accents and without invisible characters.

    With `fold_width`, full-width and half-width characters become ordinary characters, and
    ligatures of Latin letters become their letters.

    Example:
        one_form("cafe\\u0301 \\uff11\\u200b2")  # "café 12"
    """
    if text.isascii():
        return text
    visible = text.translate(_INVISIBLE)
    if fold_width:
        visible = "".join(map(_ordinary, visible)).translate(_LIGATURES)
    return unicodedata.normalize("NFC", visible)


def _ordinary(character: str) -> str:
    if unicodedata.decomposition(character).split(" ", 1)[0] in _WIDE:
        return unicodedata.normalize("NFKC", character)
    return character


def normalise(text: str) -> str:
    """Return the text as `one_form` normalises it, in lower case and with single spaces.

    Spaces and full stops at both ends are removed, but the point of ".5" stays.

    Example:
        normalise(" Seven  Apples. ")  # "seven apples"
    """
    flat = re.sub(r"\s+", " ", one_form(text)).rstrip(" .")
    return one_form(re.sub(r"^(?: |\.(?!\d))+", "", flat).lower())
