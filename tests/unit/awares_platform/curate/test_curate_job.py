"""Tests the shards of curation, the reuse of finished shards, and the summary.

tests/integration/test_curate_pipeline.py runs the whole pipeline.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from awares.crops import CropId
from awares.errors import DataError
from awares.sample import Label, Sample
from awares.ten_crops import TenCrops
from awares_platform.config import PlatformConfig
from awares_platform.curate import job
from awares_platform.curate.job import CurateResult, summarise
from awares_platform.curate.shards import Shard, is_finished, plan, write_curated
from awares_platform.data.dataset import Split
from awares_platform.data.rows import Fault, encode_rows
from awares_platform.runtime.run import Run
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training.recipe import label_recipe


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{index}", "a" * 64, "q", "7") for index in range(count)]


def config(**sections: object) -> PlatformConfig:
    return PlatformConfig.model_validate({"data": {"shard_rows": 2}} | sections)


def planned(setup: PlatformConfig, given: list[Sample], policy: str = "") -> list[Shard]:
    recipe = label_recipe(setup.method, setup.engine, setup.curate, policy)
    return plan(setup.data, given, recipe)


def fingerprints(setup: PlatformConfig, given: list[Sample], policy: str = "") -> list[str]:
    return [shard.fingerprint for shard in planned(setup, given, policy)]


def test_shards_are_cut_in_order() -> None:
    shards = planned(config(), samples(5))
    assert [len(shard.samples) for shard in shards] == [2, 2, 1]
    assert [shard.key for shard in shards] == [
        f"datasets/awares-mini-curated/train/part-0000{index}.parquet" for index in range(3)
    ]
    assert [sample.sample_id for shard in shards for sample in shard.samples] == [
        "s0",
        "s1",
        "s2",
        "s3",
        "s4",
    ]


def test_a_fingerprint_changes_with_what_labels_depend_on_and_with_nothing_else() -> None:
    base = fingerprints(config(), samples(4))
    assert fingerprints(config(), samples(4)) == base
    assert base[0] != base[1]
    unrelated = config(
        grpo={"steps": 3},
        method={"alpha_miss": 9.0},
        curate={"in_flight": 3, "engines": 2},
        run={"seed": 5},
    )
    assert fingerprints(unrelated, samples(4)) == base
    for changed in (
        config(method={"mapping": "coverage"}),
        config(curate={"max_tokens": 5}),
        config(method={"low_ratio": 0.25}),
        config(engine={"max_model_len": 2048}),
    ):
        assert not set(fingerprints(changed, samples(4))) & set(base)
    other = [*samples(3), Sample("s3", "a" * 64, "another question", "7")]
    assert fingerprints(config(), other)[0] == base[0]
    assert fingerprints(config(), other)[1] != base[1]


def test_another_judge_keeps_the_answers_of_the_engine() -> None:
    def answers(**sections: object) -> list[str]:
        return [shard.answers for shard in planned(config(**sections), samples(4), "policy")]

    base = answers()
    assert len(set(base)) == 2 and base[0].startswith("datasets/awares-mini/answers/")
    assert answers(curate={"min_confidence": 0.1, "both_wrong": "LR"}) == base
    assert answers(method={"mapping": "coverage", "coverage_tau": 0.7}) == base
    for changed in (
        {"curate": {"max_tokens": 5}},
        {"method": {"low_ratio": 0.25}},
        {"method": {"base_prompt": "hello"}},
        {"engine": {"dtype": "float16"}},
    ):
        assert not set(answers(**changed)) & set(base)


def test_labels_of_another_policy_are_not_reused() -> None:
    one, other = (fingerprints(config(), samples(4), policy) for policy in ("ab12", "cd34"))
    assert not set(one) & set(other)


def test_only_an_intact_shard_of_the_same_work_is_finished() -> None:
    objects: dict[str, bytes] = {}

    class Reader:
        def get(self, key: str) -> bytes:
            if key not in objects:
                raise NotFound(key)
            return objects[key]

    shard = Shard("k", tuple(samples(2)), "ab12")
    store = cast(ObjectStore, Reader())
    assert not is_finished(store, shard)
    objects["k"] = encode_rows(shard.samples, metadata={"fingerprint": "other"})
    assert not is_finished(store, shard)
    objects["k"] = encode_rows(shard.samples, metadata={"fingerprint": "ab12"})
    assert is_finished(store, shard)
    objects["k"] = objects["k"][:-20]
    assert not is_finished(store, shard)
    empty = {"fingerprint": "ab12", "lost": "0"}
    objects["k"] = encode_rows((), metadata=empty)
    assert is_finished(store, shard), "all samples were dropped because both answers are wrong"
    objects["k"] = encode_rows((), metadata=empty | {"lost": "2"})
    assert not is_finished(store, shard), "the endpoint may have been mended"


def test_a_split_without_any_label_is_a_fault_and_gets_no_manifest() -> None:
    class Shards:
        def get(self, key: str) -> bytes:
            return encode_rows((), metadata={"fingerprint": "ab12"})

    shards = [Shard("k", tuple(samples(3)), "ab12")]
    with pytest.raises(DataError, match="none of the 3 questions of awares-mini has a label"):
        write_curated(cast(ObjectStore, Shards()), config().data, shards, {})


def test_the_summary_by_hand() -> None:
    labelled = [
        Sample("a", "a" * 64, "q", "7", label=Label.LR),
        Sample("b", "a" * 64, "q", "7", label=Label.HR, crops=(CropId.TOP_LEFT,)),
        Sample(
            "c", "a" * 64, "q", "7", label=Label.HR, crops=(CropId.TOP_LEFT, CropId.BOTTOM_RIGHT)
        ),
        Sample("d", "a" * 64, "q", "7", label=Label.LR),
    ]
    source = Split(tuple(samples(6)), ({},) * 6, (Fault("k", 3, "question: empty"),))
    result = summarise(
        source,
        Split(tuple(labelled), ({},) * 4, ()),
        TenCrops(),
        planned=6,
        shards=3,
        resumed=1,
        dataset="d/",
        wall_s=7.0,
    )
    crops = {"0": 2, "3": 1}
    assert result == CurateResult(
        dataset="d/",
        samples=4,
        lr=2,
        hr=2,
        crops=crops,
        left_out=2,
        source_faults=1,
        shards=3,
        shards_resumed=1,
        wall_s=7.0,
    )
    assert result.hr_share == 0.5


def test_progress_names_the_start_of_the_engine_before_any_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: dict[str, object] = {
        "key": "k",
        "lr": 3,
        "hr": 1,
        "dropped": 0,
        "unusable": 0,
        "faults": "[]",
    }
    counts |= {"dropped_boxes": 0, "reasons": "{}"}

    class Record:
        def metrics(self, step: int, values: dict[str, float]) -> None:
            pass

    def label(
        config: PlatformConfig, pending: list[Shard], say: Callable[[str], None]
    ) -> Iterator[dict[str, object]]:
        say("an answerer is lost")
        print("the engine starts", file=sys.stderr)
        yield counts

    monkeypatch.setattr(job, "_label", label)
    job._label_all(config(), [Shard("k", tuple(samples(4)), "ab12")], cast(Run, Record()), 1)
    assert [line.split(": ")[-1] for line in capsys.readouterr().err.splitlines()] == [
        "starting the engine",
        "an answerer is lost",
        "the engine starts",
        "4/4 questions 1 of the last 4 HR",
        "4/4 questions done",
    ]


def test_the_summary_names_questions_shares_faults_seconds_and_place() -> None:
    result = CurateResult(
        dataset="datasets/m/train/",
        samples=11801,
        lr=9680,
        hr=2121,
        crops={},
        left_out=487,
        source_faults=3,
        shards=24,
        shards_resumed=0,
        wall_s=389.6,
    )
    counts = "2,121 HR (18.0%), 9,680 LR, 487 without a label, 3 unreadable rows"
    assert result.summary("s3://awares/mini").splitlines() == [
        f"curate: 12,288 questions in 390 s: {counts}",
        "labels: s3://awares/mini/datasets/m/train/",
    ]
    resumed = replace(result, shards_resumed=20).summary("s3://awares/mini")
    assert f"in 390 s, 20 of 24 shards from earlier: {counts}" in resumed


def test_the_steps_of_ray_data_go_to_its_file_and_its_errors_to_the_terminal() -> None:
    import ray.data

    assert ray.data.__name__ == "ray.data", "the import of ray.data must install the log handlers"
    handlers = logging.getLogger("ray.data").handlers
    file, terminal = (
        [one for one in handlers if type(one).__name__ == name]
        for name in ("SessionFileHandler", "PlainRayHandler")
    )
    levels = [one.level for one in terminal]
    try:
        job.keep_from_terminal()
        assert [one.level for one in terminal] == [logging.ERROR]
        assert [one.level for one in file] == [logging.NOTSET]
    finally:
        for one, level in zip(terminal, levels, strict=True):
            one.setLevel(level)
