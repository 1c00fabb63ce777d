"""Tests that benchmarks are asked and scored as in lmms-eval."""

import pytest

from awares.evaluation.benchmarks import BENCHMARKS
from awares.evaluation.scorers import scorer
from tests.lmms_eval.cases import DOCUMENTS
from tests.lmms_eval.make_table import read


@pytest.mark.parametrize("task", list(DOCUMENTS))
def test_prompts_are_those_of_lmms_eval(task: str) -> None:
    benchmark = BENCHMARKS[task.removesuffix("_bench")]
    question = DOCUMENTS[task][benchmark.question]
    assert isinstance(question, str)
    assert benchmark.prompt(question) == read()[1]["prompts"][task]


def test_a_question_without_options_stays_with_its_spaces() -> None:
    """The module `lmms_eval.tasks.vstar_bench` changes a question only if it contains options."""
    vstar = BENCHMARKS["vstar"]
    assert vstar.keeps_spaces
    assert vstar.prompt(" Is it red? ").startswith(" Is it red? \nAnswer with")
    assert vstar.prompt(" Is it? (A) red (B) blue ").startswith("Is it?\nA. red\nB. blue\nAnswer")


def test_every_scorer_exists_and_formulas_have_their_own() -> None:
    for one in BENCHMARKS.values():
        scorer(one.scorer_of({}))
    ocrbench = BENCHMARKS["ocrbench"]
    assert ocrbench.scorer_of({"dataset": "HME100k"}) == "ocrbench_math"
    assert ocrbench.scorer_of({"dataset": "IIIT5K"}) == "ocrbench"
