"""Reads the prompts of the built-in judge and grounding, which are files in prompts/."""

from importlib import resources

JUDGE = "judge.txt"
GROUNDING = "grounding.txt"


def prompt(name: str) -> str:
    """Return the text of the prompt file `name`, without the line break at its end."""
    folder = resources.files("awares_platform.method")
    return folder.joinpath("prompts", name).read_text("utf-8").strip()
