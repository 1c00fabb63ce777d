"""Reads the prompts of the built-in judges and of the grounding.

A prompt is a text with placeholders such as {question}. A line "---" separates the system message
from the user's message.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from awares.errors import ConfigError
from awares_platform.config.curate import CurateConfig

JUDGE = "judge.txt"
JUDGE_EACH = "judge_each.txt"
GROUNDING = "grounding.txt"
PLACEHOLDERS = {
    JUDGE: ("question", "reference", "answer_1", "answer_2"),
    JUDGE_EACH: ("question", "reference", "answer"),
    GROUNDING: ("question",),
}
"""The placeholders of each built-in prompt. A prompt of the user's own needs all of them."""
_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")
_DIVIDER = "\n---\n"


@dataclass(frozen=True, slots=True)
class PromptText:
    """The text of a prompt, with placeholders.

    Example:
        PromptText("Answer in JSON.\n---\nQuestion: {question}").messages({"question": "2 + 2?"})
    """

    text: str

    def digest(self) -> str:
        """Return a digest of the text, as 16 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with each placeholder replaced by its value."""
        return _filled(self.text, values)

    def messages(self, values: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the filled prompt as chat messages."""
        system, divider, user = self.text.partition(_DIVIDER)
        if not divider:
            return [{"role": "user", "content": self.fill(values)}]
        return [
            {"role": "system", "content": _filled(system, values)},
            {"role": "user", "content": _filled(user, values)},
        ]


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill all placeholders at once, so that a value may contain the text of a placeholder."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def built_in(file: str) -> PromptText:
    """Return the built-in prompt with this file name."""
    folder = resources.files("awares_platform.method")
    return PromptText(folder.joinpath("prompts", file).read_text("utf-8").strip())


def judge_file(curate: CurateConfig) -> str:
    """Return the file name of the built-in prompt that belongs to curate.judge_form."""
    return JUDGE_EACH if curate.judge_form == "each" else JUDGE


def judge_prompt(curate: CurateConfig) -> PromptText:
    """Return the prompt of the judge. Raises ConfigError if it cannot be used."""
    return _prompt(judge_file(curate), curate.judge_prompt, "curate.judge_prompt")


def grounding_prompt(curate: CurateConfig) -> PromptText:
    """Return the prompt of the grounding. Raises ConfigError if it cannot be used."""
    return _prompt(GROUNDING, curate.grounding_prompt, "curate.grounding_prompt")


def with_texts(curate: CurateConfig) -> CurateConfig:
    """Return `curate` with the text of each prompt instead of the path of its file.

    Processes on other machines cannot read the files. Raises ConfigError if a prompt cannot be
    used.
    """
    own = {
        "judge_prompt": curate.judge_prompt and f"{judge_prompt(curate).text}\n",
        "grounding_prompt": curate.grounding_prompt and f"{grounding_prompt(curate).text}\n",
    }
    return curate.model_copy(update=own)


def _prompt(file: str, chosen: str, key: str) -> PromptText:
    """Return the chosen prompt, or the built-in prompt `file` if `chosen` is ""."""
    if not chosen:
        return built_in(file)
    prompt, where = PromptText(_read(chosen, key).strip()), key
    if "\n" not in chosen:
        where = f"{key}={chosen}"
    wanted, found = PLACEHOLDERS[file], _PLACEHOLDER.findall(prompt.text)
    known = ", ".join(f"{{{name}}}" for name in wanted)
    if unknown := [name for name in found if name not in wanted]:
        raise ConfigError(
            f"{where} has the placeholder {{{unknown[0]}}}, which nothing fills: use {known}"
        )
    if missing := [name for name in wanted if name not in found]:
        raise ConfigError(f"{where} lacks the placeholder {{{missing[0]}}}: it needs {known}")
    return prompt


def _read(chosen: str, key: str) -> str:
    if "\n" in chosen:
        return chosen
    try:
        return Path(chosen).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{key}={chosen} cannot be read ({error}): name a text file in UTF-8"
        ) from error
