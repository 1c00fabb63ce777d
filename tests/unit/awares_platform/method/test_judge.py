"""Tests which replies of an LLM judge are a verdict (0, 1 or 2), and which are refused."""

import pytest

from awares.errors import DataError
from awares_platform.method.judge import parse_verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("0", 0), (" 1\n", 1), ("2.", 2), ("Verdict: 2", 2), ("2 (answer two), so 2", 2)],
)
def test_verdicts_that_parse(reply: str, verdict: int) -> None:
    assert parse_verdict(reply) == verdict


@pytest.mark.parametrize("reply", ["", "3", "12", "1 or 2", "-1", "0.5", "two", "20", "1,2", "²"])
def test_anything_else_is_no_verdict(reply: str) -> None:
    with pytest.raises(DataError, match="not a verdict"):
        parse_verdict(reply)
