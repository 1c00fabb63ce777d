"""Tests the order of episodes, their concurrency, damaged images, and a failing engine."""

import asyncio
import math
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoTokenizer

from awares import mini
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.episode import StopReason
from awares.episode_spec import longest
from awares.errors import DataError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import FinishReason, GenerateRequest, Generation
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.method.answers import Answers, answer_both
from awares_platform.method.environment import episode_budget, episode_spec, greedy
from awares_platform.method.play import EngineFailure, Played, check_engine, play

CONFIG = PlatformConfig()
LOGPROB = -0.1


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)))


class FakeEngine:
    """A fake engine whose reply depends on the images of the request.

    - "7" for several images, or if the last image is 112 pixels wide
    - a request for the top left crop, if `asks` is true
    - "1" otherwise

    After `dies_after` requests, the engine raises an error.
    """

    def __init__(self, chat: ChatFormat, asks: bool = False, dies_after: int | None = None) -> None:
        self.chat, self.asks, self.dies_after = chat, asks, dies_after
        self.flying = self.most = self.count = 0

    async def __call__(self, request: GenerateRequest) -> Generation:
        self.flying, self.count = self.flying + 1, self.count + 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0)
        self.flying -= 1
        if self.dies_after is not None and self.count > self.dies_after:
            raise RuntimeError("engine core died")
        first = "GET_CROPS: ['0']" if self.asks else "1"
        ids = self.chat.target(
            "7" if request.images[-1].width == 112 or len(request.images) > 1 else first
        )
        return Generation(ids, (LOGPROB,) * len(ids), (0,) * len(ids), FinishReason.STOP)


def images(digest: str) -> Image.Image:
    if digest == "b" * 64:
        raise DataError(f"images/{digest} is damaged")
    return Image.new("RGB", (112, 112))


def samples(count: int) -> list[Sample]:
    return [
        Sample(f"s{index}", "a" * 64, "What digit is on the red circle?", "7")
        for index in range(count)
    ]


def test_order_bound_and_episode(chat: ChatFormat) -> None:
    engine = FakeEngine(chat, asks=True)
    batch = samples(40)
    played = asyncio.run(
        play(
            batch,
            images,
            engine,
            chat,
            episode_spec(CONFIG.method, QWEN2_5_VL, greedy(32)),
            asyncio.Semaphore(4),
        )
    )
    assert [one.sample.sample_id for one in played] == [one.sample_id for one in batch]
    assert engine.most == 4 and engine.count == 80
    episode = played[0].episode
    assert episode is not None and episode.answer == "7" and episode.crops == (CropId.TOP_LEFT,)
    assert (episode.visual_tokens, episode.rtr_token, episode.rtr_pixel) == (8, 0.5, 0.5)
    assert all(one.latency_s > 0 for one in played)


def test_a_damaged_image_is_a_fault_and_its_siblings_live(chat: ChatFormat) -> None:
    batch = [Sample("bad", "b" * 64, "q", "7"), *samples(2)]
    played = asyncio.run(
        play(
            batch,
            images,
            FakeEngine(chat),
            chat,
            episode_spec(CONFIG.method, QWEN2_5_VL, greedy(32)),
            asyncio.Semaphore(8),
        )
    )
    assert played[0].episode is None and "is damaged" in played[0].fault
    assert [one.fault for one in played[1:]] == ["", ""]
    check_engine(played)


def test_questions_beyond_the_context_are_faults_of_the_data(chat: ChatFormat) -> None:
    """Check that long questions are left out, and are not counted as failures of the engine."""
    long = [Sample(f"long{i}", "a" * 64, "why " * 300, "7") for i in range(3)]
    engine, budget = FakeEngine(chat), episode_budget(CONFIG.method, context=1024)
    spec = episode_spec(CONFIG.method, QWEN2_5_VL, greedy(32), budget=budget)
    batch = [*long, *samples(2)]
    played = asyncio.run(play(batch, images, engine, chat, spec, asyncio.Semaphore(8)))
    assert [one.episode is None for one in played] == [True, True, True, False, False]
    assert "tokens of 1024 (engine.max_model_len); shorten the question" in played[0].fault
    assert engine.count == 2
    check_engine(played)


def test_a_dying_engine_is_an_error_and_not_a_bad_policy(chat: ChatFormat) -> None:
    played = asyncio.run(
        play(
            samples(20),
            images,
            FakeEngine(chat, dies_after=18),
            chat,
            episode_spec(CONFIG.method, QWEN2_5_VL, greedy(32)),
            asyncio.Semaphore(1),
        )
    )
    assert [one.episode.stop for one in played if one.episode][-2:] == [StopReason.ERROR] * 2
    with pytest.raises(
        EngineFailure, match="2 of 20 questions; the first, s18: RuntimeError: engine core died"
    ):
        check_engine(played)
    check_engine([*played, *[Played(samples(1)[0], None, 0.0, "x")] * 20])


def test_both_answers_come_from_one_turn_each(chat: ChatFormat) -> None:
    batch = [*samples(1), Sample("bad", "b" * 64, "q", "7")]

    def both(samples: list[Sample], asks: bool) -> list[Answers]:
        engine, limit = FakeEngine(chat, asks=asks), asyncio.Semaphore(8)
        return asyncio.run(
            answer_both(
                CONFIG.method, QWEN2_5_VL, 8, samples, images, engine, chat, limit, 1024, chat
            )
        )

    answers = both(batch, asks=False)
    assert answers[0] == Answers(batch[0], "1", "7", pytest.approx(math.exp(2 * LOGPROB)), "")
    assert (answers[1].low, answers[1].full, answers[1].confidence) == (
        "",
        "",
        0.0,
    ) and "is damaged" in answers[1].fault
    assert both(batch[:1], asks=True) == [Answers(batch[0], "", "7", 0.0, "")]


def test_a_question_without_room_for_a_request_is_a_fault_of_the_data(chat: ChatFormat) -> None:
    """Check that a sample has a fault if its crops would not fit into a second turn.

    The context is one token too short. The base policy still answers, because its single turn fits.
    """
    long = Sample("long", "a" * 64, "why " * 50, "7")
    budget = episode_budget(CONFIG.method, context=0)
    spec = episode_spec(CONFIG.method, QWEN2_5_VL, greedy(8), budget=budget)
    context = longest(spec, long.question, (112, 112), chat) - 1

    def both(batch: list[Sample], context: int) -> list[Answers]:
        engine, limit = FakeEngine(chat), asyncio.Semaphore(8)
        return asyncio.run(
            answer_both(
                CONFIG.method, QWEN2_5_VL, 8, batch, images, engine, chat, limit, context, chat
            )
        )

    tight, short = both([long, *samples(1)], context)
    assert (tight.low, tight.full, short.fault) == ("1", "7", "")
    assert f"tokens of {context} (engine.max_model_len); shorten the question" in tight.fault
    [roomy] = both([long], context + 1)
    assert roomy.fault == ""
