"""Tests which questions a two-pass policy plays a second time, and the cost of both passes."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from awares.episode import Episode, StopReason, Turn
from awares.episode_spec import EpisodeSpec
from awares.sample import Sample
from awares.ten_crops import TenCrops
from awares.tokens import VisionLimits
from awares.view import View, full_view
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.evaluate.cascade import escalate, join, threshold
from awares_platform.method.play import Played

SIZE = (112, 112)
SPEC = EpisodeSpec(VisionLimits(min_pixels=784, max_pixels=448 * 448), TenCrops())
WHOLE = full_view(SIZE)


def turn(view: View, text: str, logprob: float = 0.0, crops: tuple[str, ...] = ()) -> Turn:
    stop, area = (None, 0.25) if crops else (StopReason.ANSWER, 0.0)
    return Turn(
        context_ids=(1,),
        views=(view,),
        sampled_ids=(2,),
        logprobs=(logprob,),
        versions=(0,),
        text=text,
        crops=crops,
        stop=stop,
        area=area,
    )


def played(index: int, turns: tuple[Turn, ...], latency_s: float = 0.02) -> Played:
    tokens = sum(16 if view == WHOLE else 4 for turn in turns for view in turn.views)
    episode = Episode(
        sample_id=f"s{index}",
        image="a" * 64,
        image_size=SIZE,
        turns=turns,
        answer=turns[-1].text,
        stop=StopReason.ANSWER,
        visual_tokens=tokens,
        rtr_token=tokens / 16,
        rtr_pixel=tokens / 16,
    )
    return Played(Sample(f"s{index}", "a" * 64, "digit?", "7"), episode, latency_s, "")


def low(index: int, text: str, logprob: float) -> Played:
    return played(index, (turn(View(), text, logprob),))


FULL = [played(index, (turn(WHOLE, "full"),), latency_s=0.05) for index in range(4)]
DIRECT = played(0, (turn(View(), "awares"),))
ASKED = played(
    1, (turn(View(), "GET_CROPS: ['0']", crops=("0",)), turn(View((0, 0, 56, 56)), "no"))
)


def test_a_request_is_answered_by_a_fresh_pass_and_both_passes_count() -> None:
    direct, fresh = escalate([DIRECT, ASKED], FULL[:2], {"s1": 0.01}, SPEC)
    assert direct is DIRECT
    episode = fresh.episode
    assert episode is not None
    assert (episode.answer, episode.crops, episode.area) == ("full", ("0",), 1.0)
    assert [view for turn in episode.turns for view in turn.views] == [View(), WHOLE]
    assert (episode.visual_tokens, episode.rtr_token, episode.rtr_pixel) == (20, 1.25, 1.25)
    assert fresh.latency_s == pytest.approx(0.01 + 0.05)


def test_an_image_that_neither_pass_could_read_is_left_out() -> None:
    broken = Played(ASKED.sample, None, 0.0, "images/aa is damaged")
    assert escalate([ASKED], [broken], {}, SPEC) == [broken]
    assert escalate([broken], [broken], {}, SPEC) == [broken]


def test_a_failed_second_pass_is_an_error() -> None:
    assert FULL[1].episode is not None
    failed = replace(FULL[1].episode, turns=(), answer=None, stop=StopReason.ERROR, error="boom")
    [one] = escalate([ASKED], [replace(FULL[1], episode=failed, fault="boom")], {}, SPEC)
    assert one.episode is not None
    assert (one.episode.stop, one.episode.error, one.fault) == (StopReason.ERROR, "boom", "boom")


@pytest.mark.parametrize(
    ("budget", "again"), [(0.25, ()), (0.49, ()), (0.5, (2,)), (0.99, (0, 2)), (5.0, (0, 1, 2, 3))]
)
def test_the_least_sure_answers_are_looked_at_again_within_the_budget(
    budget: float, again: tuple[int, ...]
) -> None:
    first = [low(index, "low", logprob) for index, logprob in enumerate((-0.5, -0.1, -2.0, -0.2))]
    found = threshold(first, FULL, budget, SPEC)
    assert [one.episode.answer for one in found if one.episode] == [
        "full" if index in again else "low" for index in range(4)
    ]
    spent = [one.episode.rtr_token for one in found if one.episode]
    assert spent == [1.25 if index in again else 0.25 for index in range(4)]
    assert [one.episode.crops for one in found if one.episode] == [
        ("all",) if index in again else () for index in range(4)
    ]
    seconds = [0.07 if index in again else 0.02 for index in range(4)]
    assert [one.latency_s for one in found] == pytest.approx(seconds)


def test_an_answer_that_is_missing_is_the_least_sure() -> None:
    first = [low(0, "low", -9.0), low(1, "", 0.0)]
    found = threshold(first, FULL[:2], 0.75, SPEC)
    assert [one.episode.answer for one in found if one.episode] == ["low", "full"]


def test_the_threshold_spends_as_many_tokens_as_awares() -> None:
    rows = {
        "low": [low(index, "low", -float(index)) for index in range(2)],
        "full": FULL[:2],
        "awares": [DIRECT, ASKED],
    }
    joined = join(("full", "low", "threshold", "escalate", "awares"), rows, {}, SPEC)
    assert [one.episode.answer for one in joined["escalate"] if one.episode] == ["awares", "full"]
    # The budget is the cost of `awares`, 0.25 + 0.5. The first passes of `threshold` cost 2 * 0.25.
    # A second pass costs 1.0, which exceeds the rest of the budget.
    assert joined["threshold"] == rows["low"]
    assert join(("low",), {"low": rows["low"]}, {}, SPEC) == {"low": rows["low"]}


def failed(one: Played) -> Played:
    """Return a copy of `one` whose engine call failed before the first turn."""
    assert one.episode is not None
    nothing = {"visual_tokens": 0, "rtr_token": 0.0, "rtr_pixel": 0.0}
    error = {"turns": (), "answer": None, "stop": StopReason.ERROR, "error": "boom"}
    return replace(one, episode=replace(one.episode, **nothing, **error), fault="boom")


def test_failed_episodes_change_no_budget_and_get_no_second_pass() -> None:
    first = [low(0, "low", -1.0), low(1, "low", -2.0), failed(low(2, "", 0.0))]
    asked = [DIRECT, replace(ASKED, sample=FULL[1].sample), failed(FULL[2])]
    rows = {"low": first, "full": FULL[:3], "awares": asked}
    # The budget is 0.25 + 0.5, without the failed third episode of `awares`. The first passes cost
    # 2 * 0.25. A second pass costs 1.0, which exceeds the rest of the budget.
    joined = join(("threshold",), rows, {}, SPEC)["threshold"]
    assert joined == first
    dear = [DIRECT, played(1, (turn(WHOLE, "a"), turn(WHOLE, "b"))), failed(FULL[2])]
    joined = join(("threshold",), {**rows, "awares": dear}, {}, SPEC)["threshold"]
    assert [one.episode and one.episode.answer for one in joined] == ["low", "full", None]


def test_a_second_pass_that_fails_leaves_its_budget_to_others() -> None:
    first = [low(0, "low", -1.0), low(1, "low", -2.0), low(2, "low", -3.0)]
    found = threshold(first, [*FULL[:2], failed(FULL[2])], 0.75, SPEC)
    spent = [one.episode.rtr_token for one in found if one.episode and one.episode.answer]
    assert spent == [0.25, 1.25] and sum(spent) / 2 <= 0.75


def test_a_policy_of_two_passes_needs_those_that_it_is_computed_from() -> None:
    with pytest.raises(ValidationError, match="escalate is computed from full and awares; add"):
        EvaluateConfig(policies=("escalate", "awares"))
    with pytest.raises(ValidationError, match="add low and awares, or leave out threshold"):
        EvaluateConfig(policies=("full", "threshold"))
