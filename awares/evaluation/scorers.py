"""Scores a prediction against the accepted answers, by the rules of the benchmark suite lmms-eval.

lmms-eval changed its rules over time, so a scorer has a name and a version. The paper's figures
follow the version "2026-03". The present version is "2026-08". The scorers keep the oddities of
lmms-eval: in ChartQA "5%" does not match "5", and in POPE "Yes." is wrong. If a scorer repaired
these oddities, its scores could not be compared with published scores. There is one exception: all
scorers compare texts in one Unicode form (`awares.text_form`), so that a decomposed accent or an
invisible character does not make a right answer wrong.

    exact          equal to an answer after `awares.labels.normalise` (AwaRes-Mini)
    chartqa        a number within 5 % of the answer, or the same text, ignoring case
    docvqa         ANLS with threshold 0.5
    ocrbench       the prediction contains an accepted answer, ignoring case
    ocrbench_math  the prediction contains an accepted formula, ignoring spaces but not case
    pope           equal to the answer, yes or no
    realworldqa    the same text, or the same option if the answer is a letter
    vstar_bench    the letter of the right option
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast, get_args

from awares.errors import ConfigError
from awares.sample import Sample
from awares.text_form import normalise, one_form

Version = Literal["2026-03", "2026-08"]

Scorer = Callable[[str, Sequence[str], str], float]
"""A function of (prediction, accepted answers, question) that returns a score in [0, 1]."""

_RELAXED = 0.05
_ANLS_THRESHOLD = 0.5
_WORDS = "zero one two three four five six seven eight nine ten".split()
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_WORDS)}
_LETTER_RULES = (
    re.compile(r"ANSWER\s*(?:IS|:)?\s*:?\s*\(?([A-D])\b"),
    re.compile(r"^\s*\(?([A-D])\s*[).:,]"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"(?:OPTION|CHOICE)\s*:?\s*\(?([A-D])\b"),
    re.compile(r"^\s*([A-D])\s*$"),
    re.compile(r"\b([A-D])[.)](?:\s|$)"),
)


def exact(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1 if the prediction equals an accepted answer after normalising."""
    return float(normalise(prediction) in map(normalise, answers))


def chartqa(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return the relaxed accuracy (Methani et al., PlotQA, arXiv 1909.00997).

    If prediction and answer are numbers and the answer is not 0, the difference may be up to 5 % of
    the answer. A number with a trailing % is divided by 100. Any other prediction must equal the
    answer, ignoring case.
    """
    return max(float(_relaxed(prediction, answer)) for answer in answers)


def _relaxed(prediction: str, answer: str) -> bool:
    prediction, answer = one_form(prediction), one_form(answer)
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
    """Return ANLS (Biten et al., arXiv 1905.13648), which is 1 minus the relative edit distance.

    The relative edit distance is the edit distance divided by the length of the longer string. The
    accepted answer with the smallest distance counts. A score below 0.5 becomes 0. The distance
    ignores case and repeated spaces, but the length counts all characters.
    """
    similarity = 1 - min(_relative_distance(prediction, answer) for answer in answers)
    return similarity if similarity >= _ANLS_THRESHOLD else 0.0


def _relative_distance(prediction: str, answer: str) -> float:
    prediction, answer = one_form(prediction), one_form(answer)
    length = max(len(prediction), len(answer))
    said, true = (" ".join(text.lower().split()) for text in (prediction, answer))
    return edit_distance(said, true) / length if length else 0.0


def edit_distance(first: str, second: str) -> int:
    """Return the Levenshtein distance: an insertion, deletion or substitution costs 1."""
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            substituted = previous[column - 1] + (left != right)
            current.append(min(previous[column] + 1, current[-1] + 1, substituted))
        previous = current
    return previous[-1]


def ocrbench(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction contains an accepted answer, ignoring case.

    The version "2026-08" first replaces each full-width character by its ASCII equivalent.
    """
    return float(any(_flat(answer, version) in _flat(prediction, version) for answer in answers))


def _flat(text: str, version: Version) -> str:
    form = one_form(text, fold_width=version == "2026-08")
    return form.lower().strip().replace("\n", " ")


def ocrbench_math(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction contains an accepted formula, ignoring spaces (for HME100k).

    Upper and lower case must match. The version "2026-03" lower-cases the prediction, but not the
    answers.
    """
    said = prediction.lower() if version == "2026-03" else prediction
    return float(any(_squeezed(answer) in _squeezed(said) for answer in answers))


def _squeezed(text: str) -> str:
    form = one_form(text, fold_width=False)
    return form.strip().replace("\n", " ").replace(" ", "")


def pope(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1 if the prediction is exactly the answer, yes or no, ignoring case."""
    return float(_lower(prediction) in map(_lower, answers))


def _lower(text: str) -> str:
    return one_form(text).lower().strip()


def realworldqa(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction equals the answer, ignoring case and a final full stop.

    If the answer is the letter of an option, the two versions differ. "2026-08" extracts the letter
    from the prediction with the function `letter`. "2026-03" accepts the letter, and also the text
    that the question gives for the option. "2026-03" also replaces a number word, such as "two", by
    its digits.
    """
    return float(any(_realworld(prediction, answer, question, version) for answer in answers))


def _realworld(prediction: str, answer: str, question: str, version: Version) -> bool:
    if version == "2026-08":
        if (option := one_form(answer).strip()) in set("ABCD"):
            return letter(prediction) == option
        return _bare(prediction) == _bare(answer)
    said = _NUMBER_WORDS.get(_bare(prediction), _bare(prediction))
    found = re.findall(r"^\s*\(?([A-D])[.)]\s*(.+?)\s*$", question, re.MULTILINE)
    options = {_bare(text): key.lower() for key, text in found}
    return options.get(said, said) == _bare(answer)


def _bare(text: str) -> str:
    return _lower(text).rstrip(".")


def vstar_bench(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1 if the prediction names the letter of the right option."""
    return float(letter(prediction) in [one_form(answer).strip().upper() for answer in answers])


def letter(prediction: str) -> str | None:
    """Return the option, A to D, that a prediction names, or None if the option is unclear.

    The first matching pattern of `_LETTER_RULES` decides. If no pattern matches, the text must
    contain exactly one of the letters as a separate word.
    """
    text = one_form(prediction).upper().strip()
    for rule in _LETTER_RULES:
        match = rule.search(text)
        if match:
            return match[1]
    alone = set(re.findall(r"\b([A-D])\b", text))
    return alone.pop() if len(alone) == 1 else None


def scorer(name: str, version: str = "2026-08") -> Scorer:
    """Return the scorer of a benchmark. Raises ConfigError for an unknown name or version.

    Example:
        scorer("chartqa")("14.2", ["14"], "")  # 1.0
    """
    if version not in get_args(Version):
        known = ", ".join(get_args(Version))
        raise ConfigError(f"scorer version {version!r} is unknown; use one of {known}")
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


def score_answer(answer: str | None, sample: Sample, default: Scorer, version: str) -> float:
    """Return the score of an answer to `sample`, or 0 without an answer.

    A sample that names a scorer is scored by it, in its `version`, and any other one by `default`.
    """
    if answer is None:
        return 0.0
    own = scorer(sample.scorer, version) if sample.scorer else default
    return own(answer, sample.answers, sample.question)


def yes_no_f1(predictions: Sequence[str], answers: Sequence[str]) -> float:
    """Return POPE's F1 score of the answer "yes", or NaN if F1 is undefined (arXiv 2305.10355).

    As in the published figures, a prediction that is neither "yes" nor "no" is ignored.
    """
    said, true = (list(map(_lower, texts)) for texts in (predictions, answers))
    pairs = list(zip(said, true, strict=True))
    hits = pairs.count(("yes", "yes"))
    errors = pairs.count(("yes", "no")) + pairs.count(("no", "yes"))
    return 2 * hits / (2 * hits + errors) if hits + errors else math.nan
