from dataclasses import replace

import pytest

from awares.crops import CropId, area_fraction
from awares.episode import Episode, StopReason
from awares.errors import ConfigError, DataError
from awares.reward import CropReward, RewardValue, answer_reward
from awares.sample import Label, Sample
from tests.spoken_turn import spoken_turn

S, A = StopReason, CropId.ALL


def same(answers, truths):
    """Return 1.0 for an answer that equals its truth, and 0.5 for a different answer."""
    return [1.0 if answer == truth else 0.5 for answer, truth in zip(answers, truths, strict=True)]


def paper(answer=same) -> CropReward:
    return CropReward(answer, malformed_cost=1.5)


def episode(
    answer: str | None, crops: tuple[CropId, ...] = (), stop: StopReason = S.ANSWER
) -> Episode:
    turn = spoken_turn(crops=crops, stop=None if crops else stop, area=area_fraction(crops))
    return Episode(
        sample_id="s",
        image="hash",
        image_size=(112, 112),
        turns=(turn,),
        answer=answer,
        stop=stop,
        visual_tokens=0,
        rtr_token=0.0,
        rtr_pixel=0.0,
    )


def sample(label: Label | None) -> Sample:
    return Sample("s", "hash", "why?", "7", label=label)


@pytest.mark.parametrize(
    ("label", "played", "answer", "cost"),
    [
        (Label.LR, episode("7"), 10.0, 0.0),
        (Label.LR, episode("3"), 5.0, 0.0),
        # The label HR means that crops are needed. An episode without crops has a cost, even if its
        # answer is right.
        (Label.HR, episode("7"), 10.0, 2.0),
        (Label.HR, episode("7", (CropId.TOP_LEFT,)), 10.0, 0.2525),
        # The cost of requested crops does not depend on the label.
        (
            Label.LR,
            episode("7", (CropId.TOP_LEFT,)),
            10.0,
            0.2525,
        ),
        (Label.HR, episode("7", (A,)), 10.0, 0.26),
        # The top half contains the quadrant, but both areas count: 0.25 + 0.5 = 0.75.
        (
            Label.HR,
            episode("7", (CropId.TOP_LEFT, CropId.TOP)),
            10.0,
            0.2575,
        ),
        (Label.HR, episode("3", (A,)), 5.0, 0.26),
        (Label.HR, episode(None, stop=S.MALFORMED), 0.0, 1.5),
        (Label.LR, episode(None, stop=S.MALFORMED), 0.0, 1.5),
        (Label.HR, episode(None, (A,), S.MALFORMED), 0.0, 1.76),
        (Label.HR, episode(None, (A,), S.TURN_LIMIT), 0.0, 1.76),
        (Label.LR, episode(None, stop=S.TURN_LIMIT), 0.0, 1.5),
        (Label.HR, episode(None, stop=S.LENGTH), 0.0, 2.0),
        (Label.LR, episode("7", stop=S.LENGTH), 10.0, 0.0),
        (Label.LR, episode(""), 0.0, 0.0),
        (Label.HR, episode(None, stop=S.ERROR), 0.0, 0.0),
    ],
)
def test_the_table(label, played, answer, cost):
    (got,) = paper()([played], [sample(label)])
    assert got.parts == {"answer": pytest.approx(answer), "cost": pytest.approx(cost)}
    assert got.total == pytest.approx(answer - cost)


def test_the_best_of_several_answers_counts():
    several = replace(sample(Label.LR), further_answers=("seven", "VII"))
    rows = [episode(answer=text) for text in ("VII", "seven", "8")]
    values = CropReward("exact")(rows, [several] * 3)
    assert [value.parts["answer"] for value in values] == [10.0, 10.0, 0.0]


def test_a_group_is_one_call_of_the_similarity_in_order():
    seen = []

    def counted(answers, truths):
        seen.append((list(answers), list(truths)))
        return same(answers, truths)

    group = [episode("3"), episode(None, stop=S.MALFORMED), episode("7")]
    got = paper(counted)(group, [sample(Label.LR)] * 3)
    assert got == [
        RewardValue(5.0, {"answer": 5.0, "cost": 0.0}),
        RewardValue(-1.5, {"answer": 0.0, "cost": 1.5}),
        RewardValue(10.0, {"answer": 10.0, "cost": 0.0}),
    ]
    assert seen == [(["3", "7"], ["7", "7"])]


@pytest.mark.parametrize(
    ("name", "said", "truth", "want"),
    [
        ("exact", " Seven. ", "seven", 1.0),
        ("exact", "sevan", "seven", 0.0),
        ("anls", "Seven", "seven", 1.0),
        ("anls", "sevan", "seven", 0.8),
        # A similarity of 0.4 is below the threshold of 0.5, so the result is 0.
        ("anls", "ten", "seven", 0.0),
        ("similarity", "seven", "seven", 1.0),
    ],
)
def test_answer_rewards_by_name(name: str, said: str, truth: str, want: float) -> None:
    assert answer_reward(name)([said, truth], [truth, truth]) == pytest.approx([want, 1.0])


def test_an_unknown_answer_reward_is_refused() -> None:
    with pytest.raises(ConfigError, match="use similarity, exact or anls"):
        CropReward("edit-distance")


def test_a_sample_without_a_label_is_refused() -> None:
    with pytest.raises(DataError, match="sample s has no label"):
        paper()([episode("7")], [sample(None)])
