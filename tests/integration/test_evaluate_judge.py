"""Tests on a real store how an evaluation asks a judge, which may cost money.

The evaluation pays for no reply twice, and does not exceed the budget.
"""

import io
import json
import shutil
import uuid
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from awares.episode import Episode, StopReason
from awares.errors import AwaresError
from awares.labels import Case, Judgement
from awares_platform.cli.main import main
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Split, ensure_mini, read_split
from awares_platform.evaluate.cascade import PlayedBy
from awares_platform.evaluate.job import conclude
from awares_platform.evaluate.questions import prepare, read_questions
from awares_platform.evaluate.results import caption, tables
from awares_platform.method.play import Played
from awares_platform.runtime.run import Run
from awares_platform.store import ObjectStore
from tests.chat_server import ChatServer, serving
from tests.integration.published_benchmarks import write
from tests.spoken_turn import spoken_turn

pytestmark = pytest.mark.integration


class Refusing:
    """A judge that refuses every case, as an endpoint without credit does."""

    def __call__(self, case: Case) -> Awaitable[Judgement]:
        raise AwaresError(f"the judge refuses {case.question!r}")


@pytest.fixture
def config(seaweed: ObjectStore, tmp_path: Path) -> PlatformConfig:
    config = PlatformConfig.model_validate(
        {
            "run": {"name": "refused", "directory": str(tmp_path / "runs")},
            "store": seaweed.config.model_dump(),
            "data": {
                "train_samples": 1,
                "test_samples": 3,
                "image_cache": str(tmp_path / "images"),
            },
            "curate": {"judge": f"{__name__}:Refusing"},
            "evaluate": {"policies": ["full", "low"]},
        }
    )
    ensure_mini(config.data, seaweed)
    return config


def played(split: Split) -> PlayedBy:
    """Return the same made-up answer to each question for the policies full, low and awares."""
    rows = [
        Played(
            sample,
            Episode(
                sample_id=sample.sample_id,
                image=sample.image,
                image_size=(112, 112),
                turns=(spoken_turn(stop=StopReason.ANSWER),),
                answer="7",
                stop=StopReason.ANSWER,
                visual_tokens=4,
                rtr_token=0.25,
                rtr_pixel=0.25,
            ),
            0.02,
            "",
        )
        for sample in split.samples
    ]
    return {"full": rows, "low": rows, "awares": rows}


def evaluate(config: PlatformConfig, store: ObjectStore, split: Split) -> dict[str, Any]:
    """Conclude an evaluation of the made-up answers, and return its results."""
    with Run(config, "evaluate") as record:
        return conclude(config, store, record, split, played(split))


def test_answers_are_kept_before_a_judge_is_asked(
    seaweed: ObjectStore, config: PlatformConfig
) -> None:
    split = read_split(seaweed, config.data.name, "test", 3)
    with pytest.raises(AwaresError, match="the judge refuses"):
        evaluate(config, seaweed, split)
    for policy in ("full", "low"):
        data = seaweed.get(f"runs/refused/evaluate/episodes-{policy}.parquet")
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        assert [row["answer"] for row in rows] == ["7"] * 3
        assert [row["sample_id"] for row in rows] == [one.sample_id for one in split.samples]


@pytest.fixture
def judge() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


def paid(config: PlatformConfig, judge: ChatServer, budget: float) -> PlatformConfig:
    """Return a setup whose judge costs 1 for each reply, which has two output tokens."""
    endpoint = {"url": judge.url, "model": "m", "in_flight": 1, "output_price": 5e5}
    curate = {"judge": "endpoint", "both_wrong": "LR", "min_confidence": 0.0, "budget": budget}
    settings = config.model_dump() | {"curate": curate | {"judge_endpoint": endpoint}}
    settings["data"]["name"] = f"paid-{uuid.uuid4().hex[:8]}"
    return PlatformConfig.model_validate(settings)


def test_an_evaluation_keeps_the_budget_and_pays_for_no_reply_twice(
    seaweed: ObjectStore,
    config: PlatformConfig,
    judge: ChatServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a spent budget, an evaluation keeps the paid labels and still writes its results."""
    config = paid(config, judge, budget=2)
    ensure_mini(config.data, seaweed)
    split = read_split(seaweed, config.data.name, "test", 3)
    for _ in range(2):
        caplog.clear()
        results = evaluate(config, seaweed, split)
        assert results["labels"] == {"counts": {"LR": 2, "none": 1}, "crops": {}, "unpaid": 1}
        assert "1 questions have no label, because curate.budget is spent" in caption(results)
        assert "1 of 3 questions get no label: curate.budget=2 is spent" in caplog.text
        assert "Raise curate.budget and run the command again" in caplog.text
        assert json.loads(seaweed.get("runs/refused/evaluate/results.json")) == results
        assert len(judge.bodies) == 2

    curate = config.curate.model_copy(update={"budget": 100.0})
    config = config.model_copy(update={"curate": curate})
    for _ in range(2):
        results = evaluate(config, seaweed, split)
        assert results["labels"] == {"counts": {"LR": 3}, "crops": {}, "unpaid": 0}
        assert "budget" not in caption(results)
        assert len(judge.bodies) == 3


def test_an_evaluation_asks_again_once_a_judge_without_a_readable_reply_is_mended(
    seaweed: ObjectStore, config: PlatformConfig, judge: ChatServer
) -> None:
    config = paid(config, judge, budget=0)
    ensure_mini(config.data, seaweed)
    split = read_split(seaweed, config.data.name, "test", 3)
    judge.reply = lambda body, count: (200, None)
    assert evaluate(config, seaweed, split)["labels"]["counts"] == {"none": 3}
    judge.reply = lambda body, count: (200, "0")
    assert evaluate(config, seaweed, split)["labels"]["counts"] == {"LR": 3}


@pytest.fixture
def benchmarks(seaweed: ObjectStore, config: PlatformConfig, tmp_path: Path) -> PlatformConfig:
    """Import two benchmarks, and return the configuration of their evaluation."""
    write(tmp_path / "hub", "lmms-lab")
    chosen = {"benchmarks": ("pope", "vstar"), "benchmark_root": str(tmp_path / "hub")}
    evaluate = config.evaluate.model_copy(update=chosen)
    prepare(evaluate, config.data, seaweed)
    return config.model_copy(update={"evaluate": evaluate})


def test_no_judge_is_asked_about_benchmarks_and_their_report_has_images(
    seaweed: ObjectStore, benchmarks: PlatformConfig, tmp_path: Path
) -> None:
    split = read_questions(benchmarks.evaluate, benchmarks.data, seaweed)
    with Run(benchmarks, "evaluate") as record:
        results = conclude(benchmarks, seaweed, record, split, played(split))
    assert results["labels"]["counts"] == {"none": 4}
    assert results["policies"]["low"]["reward"] is None
    assert list(results["benchmarks"]) == ["pope", "vstar", "average"]
    assert tables(results).count("\n| full resolution") == 2
    shutil.rmtree(tmp_path / "images", ignore_errors=True)  # A report must not need the images.
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--config", str(record.directory / "config.json")])
    page = (tmp_path / "runs/refused/report.html").read_text("utf-8")
    assert "Is there a dog?" in page and "What colour?" in page
    assert "data:image" in page and "could not be read" not in page
    assert "cannot be read" not in page
