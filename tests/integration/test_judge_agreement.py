"""Tests the measurement of how often a second judge agrees with the verdicts of a curated set.

The second judge is a real HTTP server, and the curated set is in a real store.
"""

from collections.abc import Iterator

import pytest

from awares.errors import DataError
from awares.sample import Label, Sample
from awares_platform.config.curate import CurateConfig
from awares_platform.config.data import DataConfig
from awares_platform.curate.agreement import Agreement, measure
from awares_platform.data.dataset import write_manifest, write_samples
from awares_platform.data.rows import encode_rows
from awares_platform.store import ObjectStore
from tests.chat_server import Body, ChatServer, serving

pytestmark = pytest.mark.integration
NAME = "forms-curated-9f2c"
VERDICTS = ("TIE", "TIE", "FULL", "FULL", "LOW", "TIE")
REPLIES = ("0", "2", "2", "2", "1", "nonsense")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


def reply(body: Body, count: int) -> tuple[int, str]:
    """Return the second judge's reply to the question "q<index>"."""
    text = body["messages"][1]["content"]
    return 200, REPLIES[int(text.split("Question: q")[1][0])]


def test_the_kappa_by_hand_and_nothing_is_paid_twice(
    seaweed: ObjectStore, server: ChatServer
) -> None:
    server.reply = reply
    samples = [
        Sample(f"s{index}", "a" * 64, f"q{index}", "7", label=Label.LR) for index in range(6)
    ]
    columns = {
        "low_answer": [str(index) for index in range(6)],
        "full_answer": ["7"] * 6,
        "verdict": list(VERDICTS),
    }
    key = f"datasets/{NAME}/train/part-00000.parquet"
    seaweed.put(key, encode_rows(samples, columns))
    write_manifest(seaweed, NAME, "train", [key], 6)
    curate = CurateConfig.model_validate(
        {
            "second_judge": "endpoint",
            "second_judge_endpoint": {"url": server.url, "model": "second", "retry_budget_s": 5},
        }
    )
    found = measure(seaweed, DataConfig(name="forms"), curate, NAME)
    # The first judge says TIE 2 times, LOW once and FULL 2 times. The second judge says TIE once,
    # LOW once and FULL 3 times. Chance agreement is (2 * 1 + 1 * 1 + 2 * 3) / (5 * 5) = 0.36.
    assert (found.samples, found.unreadable, found.observed) == (5, 1, 0.8)
    assert found.kappa == pytest.approx((0.8 - 0.36) / (1 - 0.36))
    assert "match and second agree on 80.0% of 5 samples; Cohen's kappa is 0.688" in found.summary()
    asked = len(server.bodies)
    assert asked == 7, "the reply that does not parse is asked once more"
    assert measure(seaweed, DataConfig(name="forms"), curate, NAME) == found
    assert len(server.bodies) == asked


def test_a_set_without_verdicts_is_refused(seaweed: ObjectStore) -> None:
    write_samples(seaweed, "bare", "train", [Sample("s", "a" * 64, "q", "7")])
    with pytest.raises(DataError, match="bare has no verdicts: name a set that `awares curate`"):
        measure(seaweed, DataConfig(name="bare"), CurateConfig(), "bare")


def test_judges_that_always_say_the_same_agree() -> None:
    assert Agreement("a", "b", {"TIE TIE": 3}, 0).kappa == 1.0
