import numpy as np
import pytest

from awares.errors import ConfigError
from awares.similarity import SentenceSimilarity


@pytest.fixture(scope="module")
def minilm() -> SentenceSimilarity:
    return SentenceSimilarity("minilm")


def test_real_weights_order_answers_by_meaning(minilm):
    same, digit, color, unrelated = minilm(
        ["7", "3", "blue", "a photo of a dog"], ["7", "7", "red", "7"]
    )
    assert same == pytest.approx(1.0, abs=1e-5)
    # A wrong digit or a wrong color still has a similarity of 0.73 to the right answer.
    assert digit == pytest.approx(0.73, abs=0.05) and color == pytest.approx(0.73, abs=0.05)
    assert unrelated < 0.4


def test_results_do_not_depend_on_the_memo_or_the_company(minilm):
    """Check that an instance with other texts in its cache gives the same result, bit for bit."""
    answers = ["seven", "a much longer sentence about seven dwarfs", "red 7", "blue", "x"]
    together = SentenceSimilarity()(answers, ["7"] * len(answers))
    alone = [minilm([answer], ["7"])[0] for answer in answers]
    assert together == alone
    assert minilm(answers, ["7"] * len(answers)) == alone
    assert minilm([], []) == []


def test_the_memo_saves_encoding_and_is_bounded(minilm, monkeypatch):
    encoded = []

    class Counting:
        def encode(self, texts, **_):
            encoded.extend(texts)
            return np.eye(8)[[int(text) for text in texts]]

    similarity = SentenceSimilarity("minilm", remember=3)
    monkeypatch.setattr(similarity, "_encoder", Counting())
    assert similarity(["1", "2"], ["1", "1"]) == [1.0, 0.0]
    assert similarity(["2"], ["1"]) == [0.0] and encoded == ["1", "2"]
    similarity(["3", "4"], ["5", "5"])
    assert similarity(["5"], ["5"]) == [1.0] and encoded == ["1", "2", "3", "4", "5"]
    similarity(["1"], ["1"])
    assert encoded == ["1", "2", "3", "4", "5", "1"]


def test_a_missing_model_names_the_setting():
    with pytest.raises(
        ConfigError, match="method.similarity_model '/nowhere/model' cannot be loaded"
    ):
        SentenceSimilarity("/nowhere/model")
