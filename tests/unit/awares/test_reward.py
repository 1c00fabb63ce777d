import pytest

from awares.crops import CropId
from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError
from awares.reward import Reward, RewardSettings, reward, rewards, tool_cost
from awares.sample import Label, Sample

PAPER = RewardSettings(
    answer_weight=10.0, alpha_miss=2.0, alpha_use=0.25, lambda_area=0.01, malformed_cost=1.5
)
S, A = StopReason, CropId.ALL


def same(answers, truths):
    """1 for equal texts, else 0.5."""
    return [1.0 if answer == truth else 0.5 for answer, truth in zip(answers, truths, strict=True)]


def episode(
    answer: str | None, crops: tuple[CropId, ...] = (), stop: StopReason = S.ANSWER
) -> Episode:
    turn = Turn((), (), (), (), (), "", crops, None if crops else stop)
    return Episode("s", "hash", (112, 112), (turn,), answer, stop, 0, 0.0, 0.0)


def sample(label: Label | None) -> Sample:
    return Sample("s", "hash", "why?", "7", label=label)


@pytest.mark.parametrize(
    ("label", "played", "answer", "cost"),
    [
        (Label.LR, episode("7"), 10.0, 0.0),
        (Label.LR, episode("3"), 5.0, 0.0),
        (Label.HR, episode("7"), 10.0, 2.0),  # a missed call costs even where the guess was right
        (Label.HR, episode("7", (CropId.TOP_LEFT,)), 10.0, 0.2525),
        (
            Label.LR,
            episode("7", (CropId.TOP_LEFT,)),
            10.0,
            0.2525,
        ),  # the cost of a call does not depend on the label
        (Label.HR, episode("7", (A,)), 10.0, 0.26),
        (
            Label.HR,
            episode("7", (CropId.TOP_LEFT, CropId.TOP)),
            10.0,
            0.2575,
        ),  # overlap counts twice: 0.75
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
    got = reward(played, sample(label), same, PAPER)
    assert (got.answer, got.cost, got.total) == (
        pytest.approx(answer),
        pytest.approx(cost),
        pytest.approx(answer - cost),
    )


def test_a_group_is_one_call_of_the_similarity_in_order():
    seen = []

    def counted(answers, truths):
        seen.append((list(answers), list(truths)))
        return same(answers, truths)

    group = [episode("3"), episode(None, stop=S.MALFORMED), episode("7")]
    got = rewards(group, [sample(Label.LR)] * 3, counted, PAPER)
    assert got == [Reward(5.0, 5.0, 0.0), Reward(-1.5, 0.0, 1.5), Reward(10.0, 10.0, 0.0)]
    assert seen == [(["3", "7"], ["7", "7"])]


def test_a_sample_without_a_label_is_refused():
    with pytest.raises(DataError, match="sample s has no label"):
        tool_cost(episode("7"), sample(None), PAPER)
