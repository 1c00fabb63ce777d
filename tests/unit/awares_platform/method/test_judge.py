"""Tests which replies of an LLM judge are a verdict (0, 1 or 2), and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awares_platform.method.spoken import Unreadable
from awares_platform.method.verdicts import read_verdict

REPLIES = Path(__file__).parent / "replies" / "judge_replies.jsonl"


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in REPLIES.read_text("utf-8").splitlines()]


def read(reply: str | None) -> int | None:
    try:
        return int(read_verdict(reply))
    except Unreadable:
        return None


@pytest.mark.parametrize("case", cases(), ids=lambda case: repr(case["content"])[:50])
def test_a_reply_gives_its_verdict_or_none(case: dict[str, Any]) -> None:
    assert read(case["content"]) == case["verdict"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("0", 0), (" 1\n", 1), ("2.", 2), ("Verdict: 2", 2), ("2 (answer two), so 2", 2)],
)
def test_verdicts_that_parse(reply: str, verdict: int) -> None:
    assert read(reply) == verdict


@pytest.mark.parametrize(
    "reply", ["3", "12", "1 or 2", "0.5", "two", "20", "1,2", "²", "1.5", "2x3"]
)
def test_anything_else_is_no_verdict(reply: str) -> None:
    with pytest.raises(Unreadable, match="not a verdict"):
        read_verdict(reply)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "empty"),
        (" \n", "empty"),
        ("<think>41 is", "thought"),
        ("I\u2019m sorry, but I can\u2019t help with that.", "refusal"),
        ("As an AI, I do not judge.", "refusal"),
        ("both", "form"),
        ("**", "form"),
    ],
)
def test_the_reason_of_a_lost_reply_is_told_apart(reply: str | None, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_verdict(reply)
    assert caught.value.reason == reason


@settings(deadline=None)
@given(
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["{}", "{}.0", "**{}**", "Digit: {}", '{{"score": {}}}', "\\boxed{{{}}}"]),
    st.text(st.characters(blacklist_characters="<>"), max_size=80),
)
def test_a_thought_never_changes_the_verdict(digit: int, form: str, thought: str) -> None:
    assert read(f"<think>{thought} 0 1 2</think>\n{form.format(digit)}") == digit


@settings(deadline=None)
@given(st.text(max_size=200) | st.text('012., \nanswer:is{}"<think>/', max_size=60))
def test_reading_raises_nothing_else(reply: str) -> None:
    assert read(reply) in (None, 0, 1, 2)
