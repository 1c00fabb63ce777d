"""Scores of a prediction against its accepted answers, by the rules of the six benchmarks as lmms-eval applies them.

Rules differ by date, so a scorer is chosen by name and version: "2026-03" is what the paper's figures were made with, "2026-08" the
rules since. Oddities are kept on purpose (ChartQA's "5%" against "5" is wrong, POPE's "Yes." is wrong): a score is comparable or useless.

    exact         equality after `awares.labels.normalise` (AwaRes-Mini)
    chartqa       relaxed: 5 % on numbers, else equality without case
    docvqa        ANLS, threshold 0.5
    ocrbench      any accepted answer contained in the prediction
    ocrbench_math the same for HME100k: case kept, spaces removed
    pope          equality with yes or no
    realworldqa   equality, or the option's letter
    vstar_bench   the option's letter
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast, get_args

from awares.errors import ConfigError
from awares.labels import normalise

Version = Literal["2026-03", "2026-08"]

Scorer = Callable[[str, Sequence[str], str], float]
"""(prediction, accepted answers, question) to a score in [0, 1]."""

_RELAXED = 0.05
_ANLS_THRESHOLD = 0.5
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_NUMBER_WORDS: dict[str, str] = dict(
    zip(
        "zero one two three four five six seven eight nine ten".split(),
        map(str, range(11)),
        strict=True,
    )
)
_LETTER_RULES = (
    re.compile(r"ANSWER\s*(?:IS|:)?\s*:?\s*\(?([A-D])\b"),
    re.compile(r"^\s*\(?([A-D])\s*[).:,]"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"(?:OPTION|CHOICE)\s*:?\s*\(?([A-D])\b"),
    re.compile(r"^\s*([A-D])\s*$"),
    re.compile(r"\b([A-D])[.)](?:\s|$)"),
)


def exact(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """1 when equal to an accepted answer after normalising."""
    return float(normalise(prediction) in map(normalise, answers))


def chartqa(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Relaxed accuracy: within 5 % of a non-zero numeric answer, else equal without case; a trailing % divides by 100."""
    return max(float(_relaxed(prediction, answer)) for answer in answers)


def _relaxed(prediction: str, answer: str) -> bool:
    value, target = _number(prediction), _number(answer)
    if value is not None and target:
        return abs(value - target) / abs(target) <= _RELAXED
    return prediction.lower() == answer.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def docvqa(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """ANLS: one minus the smallest edit distance relative to the longer string, 0 below 0.5.

    The distance is taken without case and with spaces collapsed, the length from the strings as they came.
    """
    similarity = 1 - min(_relative_distance(prediction, answer) for answer in answers)
    return similarity if similarity >= _ANLS_THRESHOLD else 0.0


def _relative_distance(prediction: str, answer: str) -> float:
    length = max(len(prediction), len(answer))
    return (
        edit_distance(" ".join(prediction.lower().split()), " ".join(answer.lower().split()))
        / length
        if length
        else 0.0
    )


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions at cost 1."""
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            current.append(
                min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (left != right))
            )
        previous = current
    return previous[-1]


def ocrbench(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """1 when an accepted answer is contained, without case; full-width ASCII is folded since 2026-07-30."""
    return float(any(_flat(answer, version) in _flat(prediction, version) for answer in answers))


def _flat(text: str, version: Version) -> str:
    flat = text.lower().strip().replace("\n", " ")
    return flat.translate(_FULL_WIDTH) if version == "2026-08" else flat


def ocrbench_math(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """HME100k: case kept and spaces removed. Before 2026-04-10 the prediction alone was lower-cased."""
    said = prediction.lower() if version == "2026-03" else prediction
    return float(any(_squeezed(answer) in _squeezed(said) for answer in answers))


def _squeezed(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def pope(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """1 when equal to the answer, yes or no, without case: anything longer is wrong."""
    return float(prediction.lower().strip() in [answer.lower().strip() for answer in answers])


def realworldqa(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Equality without case and full stop. An option's letter counts as read by `letter` (2026-08), or as the letter itself or the
    text of that option in the question, with number words as digits (2026-03)."""
    return float(any(_realworld(prediction, answer, question, version) for answer in answers))


def _realworld(prediction: str, answer: str, question: str, version: Version) -> bool:
    if version == "2026-08":
        return (
            letter(prediction) == answer.strip()
            if answer.strip() in set("ABCD")
            else _bare(prediction) == _bare(answer)
        )
    said = _NUMBER_WORDS.get(_bare(prediction), _bare(prediction))
    options = {
        _bare(text): key.lower()
        for key, text in re.findall(r"^\s*\(?([A-D])[.)]\s*(.+?)\s*$", question, re.MULTILINE)
    }
    return options.get(said, said) == _bare(answer)


def _bare(text: str) -> str:
    return text.lower().strip().rstrip(".")


def vstar_bench(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """1 when the option's letter read from the prediction is the answer's."""
    return float(letter(prediction) in [answer.strip().upper() for answer in answers])


def letter(prediction: str) -> str | None:
    """The option A to D that a prediction names: by ordered patterns, else the only letter that stands alone; None if unclear."""
    text = prediction.upper().strip()
    for rule in _LETTER_RULES:
        match = rule.search(text)
        if match:
            return match[1]
    alone = set(re.findall(r"\b([A-D])\b", text))
    return alone.pop() if len(alone) == 1 else None


def scorer(name: str, version: str = "2026-08") -> Scorer:
    """The scorer of a benchmark. Raises ConfigError for an unknown name or version.

    Example:
        scorer("chartqa")("14.2", ["14"], "")  # 1.0
    """
    if version not in get_args(Version):
        raise ConfigError(
            f"scorer version {version!r} is unknown; use one of {', '.join(get_args(Version))}"
        )
    rules = cast(Version, version)
    table: dict[str, Scorer] = {
        "exact": exact,
        "chartqa": chartqa,
        "docvqa": docvqa,
        "ocrbench": partial(ocrbench, version=rules),
        "ocrbench_math": partial(ocrbench_math, version=rules),
        "pope": pope,
        "realworldqa": partial(realworldqa, version=rules),
        "vstar_bench": vstar_bench,
    }
    if name not in table:
        raise ConfigError(f"scorer {name!r} is unknown; use one of {', '.join(table)}")
    return table[name]


def yes_no_f1(predictions: Sequence[str], answers: Sequence[str]) -> float:
    """POPE's F1 over "yes", as published: a missed yes counts only where "no" was said. NaN without any yes."""
    said, true = (
        [text.lower().strip() for text in predictions],
        [text.lower().strip() for text in answers],
    )
    pairs = list(zip(said, true, strict=True))
    hits, false_yes, false_no = (
        pairs.count(("yes", "yes")),
        pairs.count(("yes", "no")),
        pairs.count(("no", "yes")),
    )
    return 2 * hits / (2 * hits + false_yes + false_no) if hits + false_yes + false_no else math.nan
