"""Tests the chart that shows how often a policy makes each request, after SFT and after GRPO."""

import re

from awares_platform.report.shift import shift

POLICIES = {
    "sft": {"n": 10, "crops": {"direct": 4, "0": 3, "all": 3}},
    "awares": {"n": 10, "crops": {"direct": 8, "0": 1, "3": 2}},
}


def _shares(drawn: str, name: str) -> list[str]:
    row = re.search(rf"</svg>{name}</span>(.*?)</div>", drawn)
    assert row
    return re.findall(r"<b>(.*?)</b>", row[1])


def test_each_request_has_its_share_after_sft_and_after_grpo():
    drawn = shift(POLICIES, {})
    assert _shares(drawn, "answers directly") == ["40.0%", "80.0%"]
    assert _shares(drawn, "top left") == ["30.0%", "10.0%"]
    assert _shares(drawn, "bottom right") == ["0.0%", "20.0%"]
    assert _shares(drawn, "whole image") == ["30.0%", "0.0%"]
    assert drawn.count('class="shift-row"') == 11 and "labels" not in drawn


def test_labels_have_their_own_bars():
    labels = {"counts": {"LR": 8, "HR": 2, "none": 5}, "crops": {"0": 2}}
    drawn = shift(POLICIES, labels)
    assert _shares(drawn, "answers directly") == ["40.0%", "80.0%", "80.0%"]
    assert _shares(drawn, "top left") == ["30.0%", "10.0%", "20.0%"]
    assert "what the labels call for" in drawn


def test_without_both_policies_there_is_no_shift():
    assert shift({"sft": POLICIES["sft"]}, {}) == ""


def test_a_policy_without_a_valid_answer_answers_nothing_directly():
    silent = {"n": 10, "crops": {"direct": 0}, "unanswered": 10}
    drawn = shift({"sft": POLICIES["sft"], "awares": silent}, {})
    assert _shares(drawn, "answers directly") == ["40.0%", "0.0%"]
    assert _shares(drawn, "gives no valid answer") == ["0.0%", "100.0%"]
    assert "gives no valid answer" not in shift(POLICIES, {})
