"""Replaces generated passages of a document.

A passage stands between two marks: `<!-- name:begin -->` and `<!-- name:end -->`.
"""

from pathlib import Path


def fill(path: Path, name: str, text: str) -> None:
    """Replace the text between the two marks called `name` in a file.

    Raises ValueError unless the file has each mark exactly once and the begin mark comes first.
    """
    path.write_text(filled(path, name, text), "utf-8")


def filled(path: Path, name: str, text: str) -> str:
    """Return the text that `fill` would write to the file, without writing it."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    document = path.read_text("utf-8")
    if (
        document.count(begin) != 1
        or document.count(end) != 1
        or document.index(begin) > document.index(end)
    ):
        raise ValueError(f"{path} needs the line {begin} and, after it, the line {end}, once each")
    before, _, rest = document.partition(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
