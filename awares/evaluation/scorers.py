"""Scores a prediction against the accepted answers, by the rules of the benchmark suite lmms-eval.

lmms-eval changed its rules over time, so a scorer has a name and a version. "2026-03" equals
lmms-eval 0.7.1, which the paper's figures follow, and "2026-08" equals lmms-eval 0.7.3. Both keep
the faults of lmms-eval, because their scores must be comparable with published scores: in POPE
"Yes." is wrong, and in V*Bench "The bus" names the option B. The version "repaired" has the same
rules without these faults. It compares texts in one Unicode form (`awares.text_form`), so that a
decomposed accent or an invisible character does not make a right answer wrong.

    exact          equal to an answer after `awares.text_form.normalise` (AwaRes-Mini)
    chartqa        a number within 5 % of the answer, or the same text, ignoring case
    docvqa         ANLS with threshold 0.5
    ocrbench       the prediction contains an accepted answer, ignoring case
    ocrbench_math  the prediction contains an accepted formula, ignoring spaces but not case
    pope           equal to the answer, yes or no
    realworldqa    the same text, or the same option if the answer is a letter
    vstar_bench    the letter of the right option

As in lmms-eval, a scorer first removes what a model writes between `<think>` and `</think>`. Only
`exact`, and `realworldqa` in the version "2026-03", keep this text. tests/lmms_eval/table.json
contains scores that lmms-eval itself has given.
"""

import re
import string
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Literal, cast, get_args

from awares.errors import ConfigError
from awares.evaluation.edit_distance import edit_distance
from awares.evaluation.option_letter import extracted, letter, starred
from awares.evaluation.reasoning import without_reasoning
from awares.sample import Sample
from awares.text_form import normalise, one_form

Version = Literal["2026-03", "2026-08", "repaired"]

Scorer = Callable[[str, Sequence[str], str], float]
"""A function of (prediction, accepted answers, question) that returns a score in [0, 1]."""

_RELAXED = 0.05
_ANLS_THRESHOLD = 0.5
_WORDS = "zero one two three four five six seven eight nine ten".split()
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_WORDS)}
_OPTIONS = frozenset("ABCD")
_WIDE_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1 if the prediction equals an accepted answer after normalising."""
    return float(normalise(prediction) in map(normalise, answers))


def _answered(prediction: str, version: Version) -> str:
    """Return the prediction without reasoning. For "repaired", also normalise its Unicode form."""
    return _as_given(without_reasoning(prediction), version)


def _as_given(text: str, version: Version, *, fold_width: bool = True) -> str:
    return one_form(text, fold_width=fold_width) if version == "repaired" else text


def chartqa(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return the relaxed accuracy (Methani et al., PlotQA, arXiv 1909.00997).

    A number may differ from the answer by 5 % of the answer. Any other prediction must equal the
    answer, ignoring case.
    """
    said = _answered(prediction, version)
    return float(any(_relaxed(said, _as_given(answer, version)) for answer in answers))


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


def docvqa(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return ANLS (Biten et al., arXiv 1905.13648), which is 1 minus the relative edit distance.

    The edit distance is divided by the length of the longer string. The nearest accepted answer
    counts. A score below 0.5 becomes 0.
    """
    said = _answered(prediction, version)
    similarity = 1 - min(_relative_distance(said, answer, version) for answer in answers)
    return similarity if similarity >= _ANLS_THRESHOLD else 0.0


def _relative_distance(prediction: str, answer: str, version: Version) -> float:
    texts = prediction, _as_given(answer, version)
    length = max(len(text if version == "repaired" else text.upper()) for text in texts)
    said, true = (" ".join(text.lower().split()) for text in texts)
    return edit_distance(said, true) / length if length else 0.0


def ocrbench(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction contains an accepted answer, ignoring case.

    "2026-08" and "repaired" first replace each full-width character by its ASCII equivalent.
    """
    said = _flat(without_reasoning(prediction), version)
    return float(any(_flat(answer, version) in said for answer in answers))


def _flat(text: str, version: Version) -> str:
    form = text.translate(_WIDE_ASCII) if version == "2026-08" else _as_given(text, version)
    return form.lower().strip().replace("\n", " ")


def ocrbench_math(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction contains an accepted formula, ignoring spaces (for HME100k).

    Upper and lower case must match. The version "2026-03" lower-cases the prediction, but not the
    answers.
    """
    said = without_reasoning(prediction)
    said = _squeezed(said.lower() if version == "2026-03" else said, version)
    return float(any(_squeezed(answer, version) in said for answer in answers))


def _squeezed(text: str, version: Version) -> str:
    form = _as_given(text, version, fold_width=False)
    return form.strip().replace("\n", " ").replace(" ", "")


def pope(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction is exactly the answer, yes or no, ignoring case.

    In the version "repaired" the first word of the prediction decides, so that "Yes." is yes.
    """
    said = yes_or_no(without_reasoning(prediction), version)
    return float(said in [yes_or_no(answer, version) for answer in answers])


def yes_or_no(text: str, version: Version) -> str:
    """Return the text that POPE compares: "yes", "no", or another text in lower case."""
    said = _as_given(text, version).lower().strip()
    first = re.match(r"\W*(yes|no)\b", said) if version == "repaired" else None
    return first[1] if first else said


def realworldqa(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction equals the answer, ignoring case and a final full stop.

    - "2026-03" reads number words, and replaces the text of an option by the option's letter.
    - "2026-08" reads the letter with `option_letter.extracted` if the answer is a letter.
    - "repaired" reads the letter with `option_letter.letter`, and also reads number words.
    """
    right = _REALWORLD[version]
    return float(any(right(prediction, answer, question) for answer in answers))


def _realworld_2026_03(prediction: str, answer: str, question: str) -> bool:
    """Return whether the prediction is right by the rules of lmms-eval 0.7.1.

    These rules never find an option with a comma, because they remove punctuation from the
    prediction only.
    """
    said = _NUMBER_WORDS.get(prediction.lower(), prediction)
    words = re.sub(r"[^\w\s]", "", said).strip()
    texts, letters = _choices(question)
    found = texts.search(words)
    return _compared(letters.get(found[0], words) if found else words) == _compared(answer)


@lru_cache(maxsize=4096)
def _choices(question: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern that matches the text of any option, and a dict from texts to letters.

    The first option of the question has the letter A, whatever letter the question shows.
    """
    texts = [text.strip() for text in re.findall(r"\b[A-Z]\.\s+([^\n]*)", question)]
    letters = {text: chr(ord("A") + place) for place, text in enumerate(texts)}
    return re.compile("|".join(map(re.escape, texts))), letters


def _compared(text: str) -> str:
    """Return the text in lower case, cut to the length of `text`, and without ASCII punctuation.

    Lower case can lengthen a text; lmms-eval 0.7.1 then cuts off the end.
    """
    return text.lower()[: len(text)].translate(_NO_PUNCTUATION)


def _realworld_2026_08(prediction: str, answer: str, question: str) -> bool:
    said, answer = without_reasoning(prediction), answer.strip()
    if answer.upper() in _OPTIONS:
        return extracted(said) == answer.upper()
    return said.lower().strip().rstrip(".") == answer.lower()


def _realworld_repaired(prediction: str, answer: str, question: str) -> bool:
    said, true = _answered(prediction, "repaired"), one_form(answer).strip()
    options = {normalise(text): option for text, option in _choices(question)[1].items()}
    if true.upper() in _OPTIONS:
        return (options.get(normalise(said)) or letter(said)) == true.upper()
    said, true = normalise(said), normalise(true)
    return _NUMBER_WORDS.get(said, said) == _NUMBER_WORDS.get(true, true)


_REALWORLD: dict[Version, Callable[[str, str, str], bool]] = {
    "2026-03": _realworld_2026_03,
    "2026-08": _realworld_2026_08,
    "repaired": _realworld_repaired,
}


def vstar_bench(
    prediction: str, answers: Sequence[str], question: str = "", *, version: Version = "2026-08"
) -> float:
    """Return 1 if the prediction names the letter of the right option.

    The published versions read the letter with `option_letter.starred`, and "repaired" with
    `option_letter.letter`.
    """
    said = _answered(prediction, version)
    read = letter(said) if version == "repaired" else starred(said)
    return float(read in [_as_given(answer, version).strip().upper() for answer in answers])


def scorer(name: str, version: str = "2026-08") -> Scorer:
    """Return the scorer of a benchmark. Raises ConfigError for an unknown name or version.

    Example:
        scorer("chartqa")("14.2", ["14"], "")  # 1.0
    """
    if version not in get_args(Version):
        known = ", ".join(get_args(Version))
        raise ConfigError(f"scorer version {version!r} is unknown; use one of {known}")
    if name == "exact":
        return exact
    table = {
        "chartqa": chartqa,
        "docvqa": docvqa,
        "ocrbench": ocrbench,
        "ocrbench_math": ocrbench_math,
        "pope": pope,
        "realworldqa": realworldqa,
        "vstar_bench": vstar_bench,
    }
    if name not in table:
        raise ConfigError(f"scorer {name!r} is unknown; use one of {', '.join(('exact', *table))}")
    return partial(table[name], version=cast(Version, version))


def score_answer(answer: str | None, sample: Sample, default: Scorer, version: str) -> float:
    """Return the score of an answer to `sample`, or 0 without an answer.

    If the sample names a scorer, this scorer is used in the version `version`. Otherwise, the
    scorer is `default`.
    """
    if answer is None:
        return 0.0
    own = scorer(sample.scorer, version) if sample.scorer else default
    return own(answer, sample.answers, sample.question)


def yes_no_f1(
    predictions: Sequence[str], answers: Sequence[str], version: Version = "2026-08"
) -> float:
    """Return POPE's F1 score of the answer "yes" (arXiv 2305.10355), or 0 if no "yes" is right.

    If a prediction is neither "yes" nor "no", the version "repaired" counts it as "no". The
    published versions ignore it.
    """
    said = [yes_or_no(without_reasoning(prediction), version) for prediction in predictions]
    if version == "repaired":
        said = ["yes" if text == "yes" else "no" for text in said]
    true = [yes_or_no(answer, version) for answer in answers]
    pairs = list(zip(said, true, strict=True))
    hits = pairs.count(("yes", "yes"))
    errors = pairs.count(("yes", "no")) + pairs.count(("no", "yes"))
    return 2 * hits / (2 * hits + errors) if hits else 0.0
