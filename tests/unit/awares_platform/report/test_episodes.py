"""Tests which episodes the report shows, and the content of an episode's card."""

from dataclasses import replace

from PIL import Image

from awares_platform.config.method import MethodConfig
from awares_platform.report.episodes import card, choose
from awares_platform.report.records import EpisodeRecord


def _episode(
    index: int, crops: tuple[str, ...] = (), correct: bool = True, kind: str = "digit"
) -> EpisodeRecord:
    return EpisodeRecord(
        sample_id=f"q{index}",
        image="ab",
        size=(64, 48),
        question="which?",
        truth="7",
        answer="7",
        correct=correct,
        kind=kind,
        label="HR",
        crops=crops,
        boxes=((0, 0, 32, 24),) * len(crops),
        evidence=((1, 2, 9, 9),),
        visual_tokens=8,
        rtr_token=0.5,
        stop="answer",
    )


def test_the_dozen_is_varied_and_holds_failures():
    frequent = [_episode(index, ("0",)) for index in range(50)]
    rare = [_episode(index, (str(crop),)) for index, crop in enumerate(range(1, 9), 50)]
    calls = frequent + rare
    direct = [_episode(index, kind=("color", "shape")[index % 2]) for index in range(100, 150)]
    wrong = [_episode(index, correct=False) for index in range(200, 220)]
    chosen = choose([*direct, *wrong, *calls])

    assert len(chosen) == len({episode.sample_id for episode in chosen}) == 12
    assert len({episode.crops for episode in chosen if episode.crops}) == 7
    answered = [episode for episode in chosen if not episode.crops and episode.correct]
    assert {episode.kind for episode in answered} == {"color", "shape"}
    assert sum(not episode.correct for episode in chosen) == 2
    assert choose([*direct, *wrong, *calls]) == chosen


def test_a_policy_that_never_calls_still_fills_the_dozen():
    assert len(choose([_episode(index) for index in range(30)])) == 12
    assert len(choose([_episode(index) for index in range(5)])) == 5


def test_a_card_draws_the_requested_boxes_and_the_evidence():
    drawn = card(_episode(1, ("0",)), Image.new("RGB", (64, 48)), MethodConfig())
    assert drawn.count('class="box"') == drawn.count('class="evidence"') == 1
    assert '<rect x="0" y="0" width="32" height="24" fill="black"/>' in drawn
    assert "asked for top left" in drawn and "8 visual tokens · RTR 0.50 · label HR" in drawn
    assert "truth" not in drawn


def test_a_direct_answer_dims_nothing():
    drawn = card(_episode(1, correct=False), Image.new("RGB", (64, 48)), MethodConfig())
    assert "mask" not in drawn and "answered directly" in drawn and "truth: <b>7</b>" in drawn


def test_a_card_does_not_call_a_malformed_turn_an_answer():
    malformed = replace(_episode(1, correct=False), answer=None, stop="malformed")
    drawn = card(malformed, Image.new("RGB", (64, 48)), MethodConfig())
    assert "gave no valid answer" in drawn and "answered directly" not in drawn
