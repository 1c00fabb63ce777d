"""Tests the cost limit of curation, and the datasheet of the labelled data, on a real store."""

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.cli import data_sets
from awares_platform.config import PlatformConfig
from awares_platform.curate.answered_rows import encode_answers
from awares_platform.curate.datasheet import datasheet
from awares_platform.curate.label_shard import label_shard
from awares_platform.curate.shards import Shard, write_curated
from awares_platform.data.dataset import put_image, shard_key, write_samples
from awares_platform.data.reply_log import BudgetSpent
from awares_platform.method.answers import Answers
from awares_platform.store import ObjectStore
from tests.chat_server import Body, ChatServer, serving

pytestmark = pytest.mark.integration
COUNT, IN_FLIGHT = 24, 2
KEY = shard_key("bills-curated", "train", 0)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        server.reply = reply
        yield server


def reply(body: Body, count: int) -> tuple[int, str]:
    """Reply as the judge model if the request has a system message, or as the grounding model.

    The judge refuses sample 0 and calls a tie for sample 1. For all other samples, it prefers the
    answer at full resolution.
    """
    if body["messages"][0]["role"] != "system":
        return 200, "[[100, 200, 300, 400]]"
    text = body["messages"][1]["content"]
    wanted = {"Question: q0\n": "I'm sorry, I can't judge that.", "Question: q1\n": "0"}
    return 200, next((said for start, said in wanted.items() if text.startswith(start)), "2")


def config(store: ObjectStore, server: ChatServer, budget: float) -> PlatformConfig:
    """Return a setup in which each reply, which has two output tokens, costs 1."""
    endpoint = {"url": server.url, "model": "m", "in_flight": IN_FLIGHT, "output_price": 5e5}
    curate = {
        "judge": "endpoint",
        "judge_endpoint": endpoint,
        "grounding": "endpoint",
        "grounding_endpoint": endpoint,
        "both_wrong": "LR",
        "min_confidence": 0.0,
        "budget": budget,
    }
    stored = {"url": store.config.url, "endpoint": store.config.endpoint}
    return PlatformConfig.model_validate(
        {"curate": curate, "store": stored, "data": {"name": "bills", "source": "store"}}
    )


def label(setup: PlatformConfig, samples: list[Sample]) -> dict[str, Any]:
    answers = [Answers(one, f"low of {one.question}", "7", 0.5, "") for one in samples]
    values = {"key": KEY, "fingerprint": "ab12", "rows": encode_answers(answers), "failure": b""}
    batch = {name: np.array([value], dtype=object) for name, value in values.items()}
    return {name: column[0] for name, column in label_shard(batch, setup).items()}


def test_a_spent_budget_stops_and_a_larger_one_goes_on_to_the_datasheet(
    seaweed: ObjectStore, server: ChatServer, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), "white").save(buffer, "PNG")
    image = put_image(seaweed, buffer.getvalue())
    samples = [Sample(f"s{index}", image, f"q{index}", "7") for index in range(COUNT)]
    write_samples(seaweed, "bills", "train", samples)

    failure = pickle.loads(label(config(seaweed, server, 10.0), samples)["failure"])
    assert isinstance(failure, BudgetSpent)
    assert "curate.budget=10 is spent" in str(failure) and "Raise curate.budget" in str(failure)
    assert 10 <= len(server.bodies) <= 10 + IN_FLIGHT - 1
    assert not seaweed.exists(KEY)

    setup = config(seaweed, server, 100.0)
    counts = label(setup, samples)
    assert (counts["failure"], counts["hr"], counts["lr"]) == (b"", COUNT - 2, 1)
    # The judge is asked COUNT times, and once more about the sample that it refuses. The grounding
    # model is asked about the COUNT - 2 samples with the label HR.
    assert len(server.bodies) == len({json.dumps(body) for body in server.bodies})
    assert len(server.bodies) == COUNT + 1 + COUNT - 2

    recipe = {"curate.judge": "endpoint", "curate.min_confidence": 0.0}
    write_curated(seaweed, setup.data, [Shard(KEY, tuple(samples), "ab12")], recipe)
    found = datasheet(seaweed, setup.curate, "bills-curated")
    assert (found["samples"], found["labels"]) == (COUNT - 1, {"HR": COUNT - 2, "LR": 1})
    assert found["crops"] == {"0": COUNT - 2} and found["left out"] == {"refusal": 1}
    assert found["used"]["judge"] == {
        "requests": COUNT + 1,
        "input_tokens": 30 * (COUNT + 1),
        "output_tokens": 2 * (COUNT + 1),
        "cost": COUNT + 1.0,
    }
    assert found["rules"] == recipe and "torch" in found["versions"]

    out = tmp_path / "bills.html"
    said = data_sets.sheet(seaweed, setup.data, found, out)
    assert f"{COUNT - 1} of {COUNT - 1} samples" in said
    assert json.loads(out.with_suffix(".json").read_text()) == found
    page = out.read_text("utf-8")
    assert "<caption>left out</caption>" in page and "<td>22</td>" in page
    assert page.count("<figure>") == COUNT - 1


def test_a_set_without_a_recipe_has_no_datasheet(seaweed: ObjectStore, server: ChatServer) -> None:
    write_samples(seaweed, "plain", "train", [Sample("s", "a" * 64, "q", "7")])
    with pytest.raises(DataError, match="plain is no curated set: name one that `awares curate`"):
        datasheet(seaweed, config(seaweed, server, 0.0).curate, "plain")
