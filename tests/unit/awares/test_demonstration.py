import asyncio

import pytest
from PIL import Image

from awares.crops import CropId
from awares.demonstration import demonstration
from awares.episode import StopReason, run_episode
from awares.episode_spec import EpisodeSpec
from awares.errors import DataError
from awares.generate import FinishReason, Generation
from awares.sample import Label, Sample
from awares.view import View

HR = Sample("s1", "hash", "why?", "7", label=Label.HR, crops=(CropId.CENTER, CropId.TOP))


def test_an_lr_sample_is_one_answer(chat):
    done = demonstration(
        Sample("s0", "hash", "why?", "7", label=Label.LR, crops=(CropId.TOP,)), chat, (100, 60)
    )
    (turn,) = done.turns
    assert (turn.context_ids, turn.views, turn.sampled_ids) == (
        chat.first_turn("why?"),
        (View(None),),
        chat.target("7"),
    )
    assert (turn.crops, turn.stop, done.tool_flags) == ((), StopReason.ANSWER, (False, False))


def test_an_hr_sample_asks_then_answers(chat):
    done = demonstration(HR, chat, (100, 60))
    request, answer = done.turns
    assert (request.text, request.crops, request.stop) == ("GET_CROPS: ['4', '5']", HR.crops, None)
    assert answer.context_ids == chat.tool_reply(2) and answer.sampled_ids == chat.target("7")
    assert answer.views == (View((25, 15, 75, 45)), View((0, 0, 100, 30)))
    assert done.tool_flags == (True,) * len(request.sampled_ids) + (False,) * len(
        answer.sampled_ids
    )


def test_a_policy_that_says_the_targets_plays_the_demonstration(chat, limits):
    """The engine samples the demonstration's target tokens, so the episode has the same turns."""
    done = demonstration(HR, chat, (100, 60))
    said = iter(turn.sampled_ids for turn in done.turns)

    async def engine(request):
        ids = next(said)
        return Generation(ids, (0.0,) * len(ids), (0,) * len(ids), FinishReason.STOP)

    episode = asyncio.run(
        run_episode(HR, Image.new("RGB", (100, 60)), engine, chat, EpisodeSpec(limits), "ep")
    )
    assert episode.turns == done.turns


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample("s2", "hash", "why?", "7"), "sample s2 has no label; run curate first"),
        (Sample("s3", "hash", "why?", " ", label=Label.LR), "sample s3 has no answer"),
        (
            Sample("s4", "hash", "why?", "7", label=Label.HR),
            "sample s4 is labelled HR but has no crops",
        ),
        (
            Sample("s5", "hash", "why?", "7", label=Label.HR, crops=("12",)),
            r"sample s5 has the crops \['12'\], which the environment does not offer",
        ),
    ],
)
def test_incomplete_samples_are_named(chat, sample, message):
    with pytest.raises(DataError, match=message):
        demonstration(sample, chat, (100, 60))
