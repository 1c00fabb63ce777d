"""Tests that an evaluation keeps all answers if the judge then refuses, with a real store."""

import io
from collections.abc import Awaitable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from awares.episode import Episode, StopReason
from awares.errors import AwaresError
from awares.labels import Case, Judgement
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import ensure_mini, read_split
from awares_platform.evaluate.job import conclude
from awares_platform.method.play import Played
from awares_platform.runtime.run import Run
from awares_platform.store import ObjectStore
from tests.spoken_turn import spoken_turn

pytestmark = pytest.mark.integration


class Refusing:
    """A judge that refuses every case, as an endpoint without credit does."""

    def __call__(self, case: Case) -> Awaitable[Judgement]:
        raise AwaresError(f"the judge refuses {case.question!r}")


def test_answers_are_kept_before_a_judge_is_asked(seaweed: ObjectStore, tmp_path: Path) -> None:
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
    split = read_split(seaweed, config.data.name, "test", 3)
    played = [
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
    with pytest.raises(AwaresError, match="the judge refuses"), Run(config, "evaluate") as record:
        conclude(config, seaweed, record, split, {"full": played, "low": played})
    for policy in ("full", "low"):
        data = seaweed.get(f"runs/refused/evaluate/episodes-{policy}.parquet")
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        assert [row["answer"] for row in rows] == ["7"] * 3
        assert [row["sample_id"] for row in rows] == [one.sample_id for one in split.samples]
