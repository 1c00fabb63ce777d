"""Tests on a real store that curation keeps readable replies, and does not ask for them again.

HTTP servers stand in for the judge model and the grounding model.
"""

import asyncio
import hashlib
import io
import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.curate.answerer import Answerer
from awares_platform.curate.losses import LossReports
from awares_platform.data.dataset import put_image
from awares_platform.data.reply_log import ReplyLog
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.method.answers import Answers
from awares_platform.method.chat_client import KeptReply
from awares_platform.store import ObjectStore
from awares_platform.store.errors import LaunchError
from tests.chat_server import ChatServer, serving

pytestmark = pytest.mark.integration
COUNT = 24
IN_FLIGHT = 2


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


def question(body: dict[str, Any]) -> str:
    """Return a digest of a request's messages."""
    return hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()


def asked(server: ChatServer) -> Counter[str]:
    return Counter(map(question, server.bodies))


def setup(store: ObjectStore, server: ChatServer) -> PlatformConfig:
    endpoint = {"url": server.url, "model": "m", "in_flight": IN_FLIGHT, "retry_budget_s": 5}
    curate = {
        "judge": "endpoint",
        "judge_endpoint": endpoint,
        "grounding": "endpoint",
        "grounding_endpoint": endpoint,
        "both_wrong": "LR",
        "min_confidence": 0.0,
    }
    stored = {"url": store.config.url, "endpoint": store.config.endpoint}
    return PlatformConfig.model_validate({"curate": curate, "store": stored})


def process(config: PlatformConfig, image: str) -> subprocess.Popen[str]:
    arguments = [config.model_dump_json(), str(COUNT), image]
    command = [sys.executable, "-m", "tests.integration.labelling_process", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def label(config: PlatformConfig, image: str) -> dict[str, str]:
    said, _ = process(config, image).communicate(timeout=120)
    return json.loads(said.splitlines()[-1])


def picture(store: ObjectStore, grey: int) -> str:
    """Store an image of one grey tone, and return its hash.

    The tests share one prefix of the store, so each test needs its own tone.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (120, 120), (grey, grey, grey)).save(buffer, "PNG")
    return put_image(store, buffer.getvalue())


def good(body: dict[str, Any], count: int) -> tuple[int, str]:
    time.sleep(0.05)
    is_judge = body["messages"][0]["role"] == "system"
    return 200, "2" if is_judge else "[[100, 200, 300, 400]]"


def test_a_killed_labelling_asks_again_only_what_was_in_flight(
    seaweed: ObjectStore, server: ChatServer
) -> None:
    config, image = setup(seaweed, server), picture(seaweed, 10)
    for kill_at in (8, COUNT + 9):
        server.reply = good
        running = process(config, image)
        while len(server.bodies) < kill_at:
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
        running.communicate()
    result = label(config, image)
    assert (result["hr"], result["unusable"], result["failure"]) == (str(COUNT), "0", "b''")
    counts = asked(server)
    assert len(counts) == 2 * COUNT
    assert sum(counts.values()) - len(counts) <= 2 * IN_FLIGHT
    before = len(server.bodies)
    assert label(config, image)["hr"] == str(COUNT)
    assert len(server.bodies) == before


def test_unreadable_replies_of_a_lost_shard_are_asked_again_once_the_endpoint_is_mended(
    seaweed: ObjectStore, server: ChatServer
) -> None:
    config, image = setup(seaweed, server), picture(seaweed, 20)
    server.reply = lambda body, count: (200, None)
    failed = label(config, image)
    assert "DataError" in failed["failure"] and failed["hr"] == "0"
    server.reply = good
    assert label(config, image)["hr"] == str(COUNT)


def test_replies_that_arrive_together_share_objects_and_are_merged(seaweed: ObjectStore) -> None:
    async def keep() -> ReplyLog[KeptReply]:
        log = ReplyLog.load(seaweed, "replies/", KeptReply)
        await asyncio.gather(*(log.keep(str(index), KeptReply("2")) for index in range(50)))
        assert len([*seaweed.list("replies/")]) == 2
        await log.keep("late", KeptReply(None, "refusal", "no"))
        log.doubt("late")
        await log.forget_doubted()
        await log.merge()
        return log

    asyncio.run(keep())
    assert len([*seaweed.list("replies/")]) == 1
    again = ReplyLog.load(seaweed, "replies/", KeptReply)
    assert again.kept("49") == KeptReply("2") and again.kept("late") is None


class LocalReports(LossReports):
    """Reports without Ray. `reason` says why the job must end, or is "" if it may go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(None)
        self.reason = reason

    def lost_before(self) -> str:
        return self.reason


def test_an_answerer_that_died_too_often_ends_the_job(
    seaweed: ObjectStore, server: ChatServer
) -> None:
    answerer = Answerer(setup(seaweed, server), LocalReports("it died 4 times"))
    values = {"key": "k", "answers": "answers/ab12.parquet", "rows": encode_rows([])}
    batch = {name: np.array([value], dtype=object) for name, value in values.items()}
    error = pickle.loads(answerer(batch)["failure"][0])
    assert isinstance(error, LaunchError) and str(error) == "it died 4 times"


def test_the_engine_is_asked_only_for_answers_that_are_not_in_the_store(
    seaweed: ObjectStore, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    damaged = {"s1": "images/aa is damaged"}

    def answer(self: Answerer, samples: Sequence[Sample]) -> list[Answers]:
        asked.append([one.sample_id for one in samples])
        return [Answers(one, "1", "7", 0.5, damaged.get(one.sample_id, "")) for one in samples]

    monkeypatch.setattr(Answerer, "_asked", answer)
    samples = [Sample(f"s{index}", "a" * 64, "q", "7") for index in range(3)]
    values = {"key": "k", "answers": "answers/ab12.parquet", "rows": encode_rows(samples)}
    batch = {name: np.array([value], dtype=object) for name, value in values.items()}
    answerer = Answerer(setup(seaweed, server), LocalReports(""))
    answerer(batch)
    damaged.clear()
    for _ in range(2):
        rows = decode_rows(answerer(batch)["rows"][0], "k")
        assert [columns["fault"] for columns in rows.columns] == ["", "", ""]
    assert asked == [["s0", "s1", "s2"], ["s1"]]
    other = encode_rows([*samples[:2], Sample("s2", "a" * 64, "another question", "7")])
    answerer(batch | {"rows": np.array([other], dtype=object)})
    assert asked[2:] == [["s0", "s1", "s2"]]
