"""Generates pairs for tests of the scorers: a model's prediction and the accepted answers.

Some predictions and answers are typical of the benchmarks, and others are odd.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

NAMES = "chartqa", "docvqa", "ocrbench", "ocrbench_math", "pope", "realworldqa", "vstar_bench"
"""The scorers that both this project and lmms-eval have."""

_TEXTS = (
    *("red", "Black", "The bus", "a white van", "Downhill", "yes", "No", "Paris, France", "caba D"),
    *("ITC Limited", "1,000", "$5.20", "12.5", "0.14", "2008", "0", "5%", "14 %", "-3", "1e3"),
    *(
        "inf",
        "nan",
        "1_000",
        "two",
        "Ten",
        "Stra\u00dfe",
        "o\ufb03ce",
        "\uff21\uff11\uff05",
        "İzmir",
    ),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "a\u200bb",
        "\u3000ab\u3000cd",
        "x^2",
        r"\frac{X}{2}",
        "AB. C",
        "",
    ),
    *("\u0391\u03a3", "ﬁ", "ŉ", "ẚ", "ſ", "K", "٣", "½", "²", "_a_"),
    *("U.S.A.", "A/B", "[C]", "D]"),
)
_OPENINGS = (
    *("", "", "", " ", "\n", "The answer is ", "answer is: ", "Answer: ", "The correct option is "),
    *(
        "I choose ",
        "my answer is",
        "Option ",
        "choice is (",
        "(",
        "**",
        '"',
        "'",
        "<think>A</think>",
    ),
    *(
        "<think>no\nC",
        "</think>",
        "<analysis>B</analysis> ",
        "so <think>a</think>b</think>",
        "정답은 ",
    ),
    *(
        "答案是",
        "It is ",
        "The correct answer is not A but ",
        "either B or ",
        "THE ANSWER ",
        "\u3000",
        ".",
    ),
)
_CLOSINGS = (
    *(
        "",
        "",
        "",
        ".",
        "..",
        " ",
        "\n",
        ")",
        "**",
        '"',
        ":",
        ",",
        "!",
        "%",
        "%%",
        " .",
        ". The red car",
    ),
    *(
        " because of the sign",
        "</think>",
        "\u3000",
        "\u200b",
        " A",
        "\nA",
        " B.",
        "]",
        " (C)",
        ";",
        "?",
    ),
)
_QUESTIONS = (
    "Which is closer?\nA. The red car\nB. The bus\nC. Black\n\nPlease answer directly with only "
    "the letter of the correct option and nothing else.",
    "Where is it?\n\nA. Left.\nB. Right, behind\nC. Two",
    "A. red B. Black C. The bus",
    "Which?\nB. red\nD. Downhill\nA. No\nA. red\nC. ",
    "How many? Answer with a single word.",
)


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A prediction that the scorer `name` compares with the accepted answers to `question`.

    Example:
        ScoredPair("pope", "Yes.", ("yes",), "Is there a dog?")
    """

    name: str
    prediction: str
    answers: tuple[str, ...]
    question: str


def pairs(seed: int, count: int) -> Iterator[ScoredPair]:
    """Yield `count` pairs, which `seed` determines."""
    chance = random.Random(seed)
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        answers = _answers(name, chance)
        said = chance.choice(answers) if chance.random() < 0.5 else _said(name, chance)
        question = chance.choice(_QUESTIONS) if name == "realworldqa" else ""
        yield ScoredPair(name, _spoken(said, chance), answers, question)


def _answers(name: str, chance: random.Random) -> tuple[str, ...]:
    if name == "pope":
        return (chance.choice(("yes", "no", "Yes", "no ")),)
    if name == "vstar_bench" or (name == "realworldqa" and chance.random() < 0.7):
        return (chance.choice(("A", "B", "C", "D", "A ", "b")),)
    several = chance.randint(1, 3) if name in ("docvqa", "ocrbench", "ocrbench_math") else 1
    return tuple(chance.choice(_TEXTS) for _ in range(several))


def _said(name: str, chance: random.Random) -> str:
    if name in ("realworldqa", "vstar_bench") and chance.random() < 0.4:
        return chance.choice("ABCDabcdE")
    if name == "pope" and chance.random() < 0.7:
        return chance.choice(("yes", "no", "YES", "Yes, there is", "maybe"))
    return chance.choice(_TEXTS)


def _spoken(text: str, chance: random.Random) -> str:
    """Return the text as a model could write it, sometimes with errors."""
    if text and chance.random() < 0.2:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(("", " ", "  ", "x", "A", "\u3000", "ß")) + text[at + 1 :]
    if text.isdecimal() and chance.random() < 0.5:
        text = f"{int(text) * chance.choice((0.94, 0.95, 0.96, 1.05, 1.06)):g}"
    form = chance.choice((str, str, str, str.lower, str.upper, str.title))
    opening, closing = (
        chance.choice(ends) if chance.random() < 0.5 else "" for ends in (_OPENINGS, _CLOSINGS)
    )
    return opening + form(text) + closing


_RED = "Which is closer?\nA. The red car\nB. The bus"
NOTED = (
    ScoredPair("realworldqa", "A. The red car", ("A",), _RED),
    ScoredPair("realworldqa", "(A)", ("A",), _RED),
    ScoredPair("realworldqa", "A)", ("A",), _RED),
    ScoredPair("realworldqa", "**B**", ("B",), _RED),
    ScoredPair("realworldqa", "a", ("A",), _RED),
    ScoredPair("realworldqa", "(b)", ("B",), _RED),
    ScoredPair("realworldqa", "Black", ("B",), _RED),
    ScoredPair("vstar_bench", "Answer: B", ("B",), ""),
    ScoredPair("vstar_bench", "Black", ("B",), ""),
    ScoredPair("vstar_bench", "The bus", ("B",), ""),
    ScoredPair("docvqa", "Stra\u00dfe", ("Strasse",), ""),
    ScoredPair("docvqa", "\ufb01n", ("fin",), ""),
    ScoredPair("ocrbench", "a\u3000b", ("a b",), ""),
    ScoredPair("chartqa", "<think>5 or 6</think>6", ("6",), ""),
    ScoredPair("pope", "Yes.", ("yes",), ""),
)
"""Pairs that lmms-eval scores in a surprising way, or that our scorers once scored otherwise."""

DOCUMENTS: dict[str, dict[str, object]] = {
    "chartqa": {"question": " How many? ", "answer": "3", "type": "human_test"},
    "docvqa": {"question": "Which form?", "answers": ["W-2", "w2"]},
    "ocrbench": {"question": " what is written? ", "answer": ["STOP"], "dataset": "IIIT5K"},
    "pope": {"question": " Is there a dog? ", "answer": "yes", "question_id": "1"},
    "realworldqa": {"question": f" {_RED}\n\nAnswer.\n", "answer": "A"},
    "vstar_bench": {
        "text": "What is the colour of the glove? (A) rubber green (B) red, or so (C) blue",
        "label": "A",
        "category": "direct_attributes",
        "question_id": "0",
    },
}
"""One row of each benchmark in the columns of its published data set, without its image."""
