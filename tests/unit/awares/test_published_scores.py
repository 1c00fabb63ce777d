"""Tests that the scorers of the versions 2026-03 and 2026-08 give the same scores as lmms-eval.

tests/lmms_eval/table.json holds scores of lmms-eval. If lmms-eval is installed, a test also
compares scores of pairs that are not in the table.
"""

from importlib.metadata import PackageNotFoundError, version

import pytest

from awares.evaluation.scorers import scorer, yes_no_f1
from tests.lmms_eval.cases import ScoredPair, pairs
from tests.lmms_eval.make_table import read
from tests.lmms_eval.published import VERSIONS, pope_f1, scores

PAIRS, TABLE = read()


def ours(chosen: list[ScoredPair], known: str) -> list[float]:
    return [scorer(one.name, known)(one.prediction, one.answers, one.question) for one in chosen]


def differences(chosen: list[ScoredPair], published: list[float], known: str) -> list[object]:
    rows = zip(chosen, ours(chosen, known), published, strict=True)
    return [row for row in rows if row[1] != pytest.approx(row[2], abs=1e-12)]


@pytest.mark.parametrize("known", ["2026-03", "2026-08"])
def test_every_pair_of_the_table_has_the_published_score(known: str) -> None:
    assert differences(PAIRS, TABLE["scores"][known], known) == []
    for name in {one.name for one in PAIRS}:
        values = [
            score
            for one, score in zip(PAIRS, TABLE["scores"][known], strict=True)
            if one.name == name
        ]
        assert 0.1 < sum(values) / len(values) < 0.9, f"{name} is hardly tested"


def test_the_versions_differ_where_lmms_eval_changed() -> None:
    first, second = (TABLE["scores"][known] for known in ("2026-03", "2026-08"))
    changed = {
        one.name for one, *pair in zip(PAIRS, first, second, strict=True) if pair[0] != pair[1]
    }
    assert changed == {"ocrbench", "ocrbench_math", "realworldqa"}


@pytest.mark.parametrize("known", ["2026-03", "2026-08"])
def test_f1_is_the_published_one(known) -> None:
    chosen = [one for one in PAIRS if one.name == "pope"]
    said, true = [one.prediction for one in chosen], [one.answers[0] for one in chosen]
    assert yes_no_f1(said, true, known) == pytest.approx(TABLE["pope_f1"][known])


def installed() -> str:
    try:
        return version("lmms-eval")
    except PackageNotFoundError:
        return ""


@pytest.mark.skipif(
    installed() not in VERSIONS,
    reason=f"install lmms-eval {' or '.join(VERSIONS)} to compare fresh pairs with it; "
    "tests/lmms_eval/table.json is compared in any case",
)
def test_fresh_pairs_have_the_scores_of_the_installed_lmms_eval() -> None:
    known, chosen = VERSIONS[installed()], list(pairs(1, 28_000))
    assert differences(chosen, scores(chosen), known) == []
    yes_no = [one for one in chosen if one.name == "pope"]
    said, true = [one.prediction for one in yes_no], [one.answers[0] for one in yes_no]
    assert yes_no_f1(said, true) == pytest.approx(pope_f1(yes_no))
