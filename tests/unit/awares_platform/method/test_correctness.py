"""Tests which replies of an LLM judge say that an answer is right or wrong, or are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awares_platform.method.correctness import read_correctness
from awares_platform.method.spoken import Unreadable


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ('{"right": true}', True),
        ('{"right": false}', False),
        ('```json\n{"Right": "False"}\n```', False),
        ('<think>right? 42 is not 41</think> {"correct": 0}', False),
        ("Right", True),
        ("**Incorrect.**", False),
        ("Wrong. The reference says 42, so the right answer is 42.", False),
        ("Yes, the answer means the same.", True),
        ("42 is 42.\nVerdict: right", True),
        ("The reference says 41.\nwrong", False),
        ("The answer is not correct, because 41 is not 42", False),
        ("\\boxed{correct}", True),
        ("1", True),
    ],
)
def test_a_reply_that_says_it(reply: str, right: bool) -> None:
    assert read_correctness(reply) is right


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "empty"),
        ("<think>right", "thought"),
        ("I'm sorry, I can't judge that.", "refusal"),
        ("42", "form"),
        ("**", "form"),
        ('{"right": "maybe"}', "form"),
        ("Right or wrong", "form"),
        ("Verdict: right. Verdict: wrong.", "form"),
        ("The answer is not wrong", "form"),
        ("10", "form"),
        ("0.5", "form"),
    ],
)
def test_a_reply_that_does_not(reply: str | None, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_correctness(reply)
    assert caught.value.reason == reason


@settings(deadline=None)
@given(st.text(max_size=100) | st.text('rightwong ye.:,01{}"\n', max_size=60))
def test_reading_raises_nothing_but_unreadable(reply: str) -> None:
    try:
        assert read_correctness(reply) in (True, False)
    except Unreadable:
        return
