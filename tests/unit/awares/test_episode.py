import asyncio
import re
from dataclasses import dataclass, field, replace

import pytest
from PIL import Image

from awares.batch import collate
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.episode import StopReason, run_episode
from awares.episode_spec import EpisodeSpec
from awares.generate import FinishReason, GenerateRequest, Generation, Sampling
from awares.one_turn import OneTurn
from awares.reward import CropReward
from awares.sample import Label, Sample
from awares.ten_crops import TenCrops
from awares.tokens import visual_tokens
from awares.view import View
from awares.whole_image import WholeImage

SAMPLE = Sample("s1", "hash", "digit on the red circle?", "7")
IMAGE = Image.linear_gradient("L").resize((112, 112)).convert("RGB")


@dataclass
class Script:
    """An engine that plays the given turns in order.

    A turn is a text, a Generation, or an exception to raise. A token's weight version is the number
    of its turn.
    """

    chat: ChatFormat
    turns: list
    requests: list[GenerateRequest] = field(default_factory=list)

    async def __call__(self, request: GenerateRequest) -> Generation:
        self.requests.append(request)
        said = self.turns[len(self.requests) - 1]
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, Generation):
            return said
        ids = self.chat.target(said)
        return Generation(
            ids,
            tuple(-0.5 / (i + 1) for i in range(len(ids))),
            (len(self.requests),) * len(ids),
            FinishReason.STOP,
        )


def play(chat, spec, *turns, sample=SAMPLE, image=IMAGE):
    engine = Script(chat, list(turns))
    return asyncio.run(run_episode(sample, image, engine, chat, spec, "ep-1")), engine


@pytest.fixture
def spec(limits) -> EpisodeSpec:
    return EpisodeSpec(limits, sampling=Sampling(temperature=1.0, seed=3))


def test_a_direct_answer(chat, spec):
    episode, engine = play(chat, spec, " 7 ")
    assert [request.token_ids for request in engine.requests] == [chat.first_turn(SAMPLE.question)]
    assert [image.size for image in engine.requests[0].images] == [(56, 56)]
    assert engine.requests[0].sampling == spec.sampling and engine.requests[0].session == "ep-1"
    assert (episode.answer, episode.stop, episode.crops) == ("7", StopReason.ANSWER, ())
    assert (episode.visual_tokens, episode.rtr_token, episode.rtr_pixel) == (4, 0.25, 0.25)
    assert (episode.sample_id, episode.image, episode.image_size, episode.error) == (
        "s1",
        "hash",
        (112, 112),
        "",
    )


def test_two_turns_only_ever_append_ids(chat, spec):
    """Turn 2's prompt joins turn 1's prompt, turn 1's sampled ids and the ids of the tool reply."""
    # These ids end with <|endoftext|>. If their text were encoded again, the ids would differ.
    odd = tuple(chat.encode("GET_CROPS: ['0', '8']")) + (
        chat.tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    first = Generation(odd, (-0.25,) * len(odd), (6,) * (len(odd) - 1) + (7,), FinishReason.STOP)
    episode, engine = play(chat, spec, first, "7")
    prompt = chat.first_turn(SAMPLE.question)
    assert engine.requests[1].token_ids == prompt + odd + chat.tool_reply(2)
    assert [image.size for image in engine.requests[1].images] == [(56, 56), (56, 56), (56, 112)]
    one, two = episode.turns
    assert (one.context_ids, one.sampled_ids, one.logprobs, one.versions) == (
        prompt,
        odd,
        first.logprobs,
        first.versions,
    )
    assert (one.crops, one.stop, one.views) == (
        (CropId.TOP_LEFT, CropId.RIGHT),
        None,
        (View(None),),
    )
    assert (two.context_ids, two.sampled_ids, two.text, two.stop) == (
        chat.tool_reply(2),
        chat.target("7"),
        "7",
        StopReason.ANSWER,
    )
    assert two.views == (View((0, 0, 56, 56)), View((56, 0, 112, 112)))
    assert two.versions == (2, 2) and two.logprobs == (-0.5, -0.25)
    assert (episode.answer, episode.crops) == ("7", (CropId.TOP_LEFT, CropId.RIGHT))
    assert (episode.visual_tokens, episode.rtr_token, episode.rtr_pixel) == (4 + 4 + 8, 1.0, 1.0)


def test_the_crops_are_cut_from_the_original(chat, spec):
    _, engine = play(chat, spec, "GET_CROPS: ['3']", "7")
    assert engine.requests[1].images[1].tobytes() == IMAGE.crop((56, 56, 112, 112)).tobytes()


def test_escalation_returns_the_whole_image(chat, spec):
    escalating = replace(spec, environment=WholeImage())
    episode, engine = play(chat, escalating, "GET_CROPS: ['all']", "7")
    assert [image.size for image in engine.requests[1].images] == [(56, 56), (112, 112)]
    assert (episode.crops, episode.visual_tokens, episode.rtr_pixel) == (("all",), 20, 1.25)
    assert engine.requests[1].token_ids[-len(chat.tool_reply(1)) :] == chat.tool_reply(1)


def test_the_full_view_is_one_turn(chat, spec):
    full = replace(spec, environment=OneTurn(TenCrops(), full=True))
    episode, engine = play(chat, full, "7")
    assert [image.size for image in engine.requests[0].images] == [(112, 112)]
    assert (episode.answer, episode.rtr_token, episode.rtr_pixel) == ("7", 1.0, 1.0)
    refused, engine = play(chat, full, "GET_CROPS: ['0']")
    assert (refused.answer, refused.stop, refused.crops, len(engine.requests)) == (
        None,
        StopReason.TURN_LIMIT,
        (),
        1,
    )


@pytest.mark.parametrize(
    ("turns", "stop", "crops"),
    [
        (["GET_CROPS: ['0'"], StopReason.MALFORMED, ()),
        (["GET_CROPS: ['0']", "GET_CROPS: ['9']"], StopReason.MALFORMED, (CropId.TOP_LEFT,)),
        (["GET_CROPS: ['0']", "GET_CROPS: ['1']"], StopReason.TURN_LIMIT, (CropId.TOP_LEFT,)),
    ],
)
def test_bad_turns_stop_without_an_answer(chat, spec, turns, stop, crops):
    episode, engine = play(chat, spec, *turns)
    assert (episode.answer, episode.stop, episode.crops, len(engine.requests)) == (
        None,
        stop,
        crops,
        len(turns),
    )


@pytest.mark.parametrize(
    ("environment", "text", "stop"),
    [
        (TenCrops(allow_all=False), "GET_CROPS: ['all']", StopReason.MALFORMED),
        (TenCrops(max_turns=1), "GET_CROPS: ['0']", StopReason.TURN_LIMIT),
        (WholeImage(), "GET_CROPS: ['0']", StopReason.MALFORMED),
    ],
)
def test_the_environment_reads_the_turns(chat, spec, environment, text, stop):
    assert play(chat, replace(spec, environment=environment), text)[0].stop is stop


def test_the_area_of_requests_is_recorded(chat, spec):
    crops, _ = play(chat, spec, "GET_CROPS: ['0', '8']", "7")
    assert ([turn.area for turn in crops.turns], crops.area) == ([0.75, 0.0], 0.75)
    whole = replace(spec, environment=WholeImage())
    assert play(chat, whole, "GET_CROPS: ['all']", "7")[0].area == 1.0


def test_an_environment_may_scale_views_and_take_three_turns(chat, spec):
    class Closer(TenCrops):
        """An environment that answers every request with the top left quadrant.

        If the request is for crop 0, the quadrant has half resolution. Otherwise, it has full
        resolution.
        """

        def views(self, request, size):
            scale = 0.5 if request.regions == ("0",) else 1.0
            return (View((0, 0, 56, 56), scale),)

    closer = replace(spec, environment=Closer(max_turns=3))
    asked = ("GET_CROPS: ['0']", "GET_CROPS: ['1']", "7")
    episode, engine = play(chat, closer, *asked)
    assert [image.size for image in engine.requests[2].images] == [(56, 56), (28, 28), (56, 56)]
    assert (episode.crops, episode.area, episode.answer) == (("0", "1"), 0.5, "7")
    assert (episode.visual_tokens, episode.rtr_pixel) == (4 + 1 + 4, 0.25 + 0.0625 + 0.25)


def test_an_environment_that_fails_is_an_episode(chat, spec):
    class Broken(TenCrops):
        def views(self, request, size):
            raise RuntimeError("no such region")

    episode, _ = play(chat, replace(spec, environment=Broken()), "GET_CROPS: ['0']")
    assert (episode.stop, episode.error) == (StopReason.ERROR, "RuntimeError: no such region")


@pytest.mark.parametrize(
    ("text", "answer", "stop"),
    [
        ("the answer is", "the answer is", StopReason.LENGTH),
        ("GET_CROPS: ['0'", None, StopReason.MALFORMED),
        ("GET_CROPS: ['0']", None, StopReason.MALFORMED),
    ],
)
def test_the_token_limit_keeps_a_cut_answer_but_no_cut_request(chat, spec, text, answer, stop):
    ids = chat.encode(text)
    cut = Generation(ids, (0.0,) * len(ids), (0,) * len(ids), FinishReason.LENGTH)
    episode, engine = play(chat, spec, cut)
    assert (episode.answer, episode.stop, episode.crops, len(engine.requests)) == (
        answer,
        stop,
        (),
        1,
    )
    assert episode.turns[0].cut and not play(chat, spec, "7")[0].turns[0].cut


@pytest.mark.parametrize("label", list(Label))
def test_an_endless_request_costs_as_much_as_a_short_malformed_one(chat, spec, label):
    ids = chat.encode("GET_CROPS: [" + "'0', " * 8)
    endless = Generation(ids, (0.0,) * len(ids), (0,) * len(ids), FinishReason.LENGTH)
    sample = replace(SAMPLE, label=label)
    episodes = [play(chat, spec, said, sample=sample)[0] for said in (endless, "GET_CROPS: [")]
    cut, short = CropReward(answer="exact", malformed_cost=1.5)(episodes, [sample] * 2)
    assert cut == short and cut.parts["cost"] == 1.5


def test_an_engine_failure_is_an_episode(chat, spec):
    episode, _ = play(chat, spec, "GET_CROPS: ['0']", RuntimeError("engine died"))
    assert (episode.stop, episode.answer, episode.error) == (
        StopReason.ERROR,
        None,
        "RuntimeError: engine died",
    )
    assert len(episode.turns) == 1 and episode.visual_tokens == 4


def test_cancelling_is_not_an_episode(chat, spec):
    with pytest.raises(asyncio.CancelledError):
        play(chat, spec, asyncio.CancelledError())


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (Generation((), (), (), FinishReason.STOP), "0 ids, 0 logprobs, 0 versions"),
        (Generation((1, 258), (0.0,), (0, 0), FinishReason.STOP), "2 ids, 1 logprobs, 2 versions"),
        (
            Generation((262, 258), (0.0, 0.0), (0, 0), FinishReason.STOP),
            r"sampled the placeholder ids \[262\]",
        ),
        (Generation((1,), (0.0,), (0,), FinishReason.STOP), "left out the stop token"),
    ],
)
def test_an_engine_that_breaks_the_contract_is_named(chat, spec, generation, message):
    assert (chat.image_token_id, chat.end_id) == (262, 258)
    episode, _ = play(chat, spec, generation)
    assert (
        episode.stop is StopReason.ERROR
        and re.search(message, episode.error)
        and episode.turns == ()
    )


def test_one_bad_episode_does_not_touch_its_siblings(chat, spec):
    async def group():
        engines = [Script(chat, [said]) for said in ("7", RuntimeError("x"), "8")]
        return await asyncio.gather(
            *(
                run_episode(SAMPLE, IMAGE, engine, chat, spec, str(i))
                for i, engine in enumerate(engines)
            )
        )

    assert [episode.answer for episode in asyncio.run(group())] == ["7", None, "8"]


def test_the_learner_sees_the_engines_prompt(chat, spec, processor, limits):
    """Check that the learner's batch has the ids of the engine's prompt and of the answer.

    The batch has one placeholder per visual token. The prompt has one placeholder per image.
    """
    episode, engine = play(chat, spec, "GET_CROPS: ['0', '8']", "7")
    batch = collate([episode], {"hash": IMAGE}.__getitem__, processor, limits)
    expanded = batch.input_ids_BT[0].tolist()
    ids = [
        token
        for token, before in zip(expanded, [None, *expanded[:-1]], strict=True)
        if not token == before == chat.image_token_id
    ]
    assert tuple(ids) == engine.requests[1].token_ids + chat.target("7")
    assert (batch.input_ids_BT == chat.image_token_id).sum().item() == episode.visual_tokens
    assert episode.visual_tokens == sum(
        visual_tokens(image.size, limits) for image in engine.requests[1].images
    )
