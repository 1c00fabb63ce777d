"""Tests the import and the evaluation of the paper's benchmarks in their published files."""

import json
from pathlib import Path
from typing import get_args

import pytest

from awares.errors import DataError
from awares.evaluation.benchmarks import BENCHMARKS, BenchmarkName
from awares_platform.config import PlatformConfig
from awares_platform.config.data import DataConfig
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.data.intake.benchmark import import_benchmark, read_benchmark
from awares_platform.evaluate.job import run
from awares_platform.evaluate.questions import images_of, token_limits
from awares_platform.runtime import session as sessions
from awares_platform.store import ObjectStore
from tests.integration.published_benchmarks import write

pytestmark = pytest.mark.integration
DATA = DataConfig()


@pytest.mark.parametrize("owner", ["lmms-lab", "lmms-lab-encoder"])
def test_published_files_become_the_questions_of_lmms_eval(
    seaweed: ObjectStore, tmp_path: Path, owner: str
) -> None:
    write(tmp_path, owner, (2246, 40))
    notes = [import_benchmark(name, str(tmp_path), DATA, seaweed) for name in BENCHMARKS]
    assert notes[0] == "chartqa has 2 of its 2,500 published rows"
    found = {name: read_benchmark(seaweed, name, None).samples for name in BENCHMARKS}
    assert {name: len(samples) for name, samples in found.items()} == {
        "chartqa": 2,
        "docvqa": 2,
        "ocrbench": 2,
        "pope": 3,
        "realworldqa": 2,
        "vstar": 1,
    }
    assert found["chartqa"][1].answer == "2012 ", "answers stay as they are"
    assert found["chartqa"][0].question.endswith("?\nAnswer the question with a single word.")
    assert found["docvqa"][0].answers == ("W-2", "w-2")
    assert found["docvqa"][0].sample_id == "docvqa/49153"
    assert [one.scorer for one in found["ocrbench"]] == ["ocrbench", "ocrbench_math"]
    assert found["ocrbench"][0].question == "what is written?"
    assert [one.kind for one in found["pope"]] == ["adversarial", "popular", "random"]
    assert len({one.image for one in found["pope"]}) == 1
    assert found["vstar"][0].question.startswith("What colour?\nA. red\nB. blue\nAnswer with")
    names = get_args(BenchmarkName)
    assert names == tuple(BENCHMARKS)
    evaluate = EvaluateConfig(benchmarks=names, benchmark_root=str(tmp_path))
    firsts = [samples[0] for samples in found.values()]
    assert token_limits(evaluate, firsts) == [16, 32, 128, 128, 16, 16]
    images = images_of(evaluate, DATA, seaweed)
    assert {images(one.image).size for one in firsts} == {(2246, 40)}, "no image is shrunk"


def test_a_benchmark_on_s3_and_a_missing_one(seaweed: ObjectStore, tmp_path: Path) -> None:
    write(tmp_path, "lmms-lab")
    prefix = f"{seaweed.config.url}/published"
    for file in tmp_path.rglob("*.parquet"):
        seaweed.put(f"published/{file.relative_to(tmp_path).as_posix()}", file.read_bytes())
    import_benchmark("vstar", prefix, DATA, seaweed)
    assert read_benchmark(seaweed, "vstar", 1).samples[0].answer == "A"
    with pytest.raises(DataError, match="holds no pope: download lmms-lab-encoder/POPE to"):
        import_benchmark("pope", f"{prefix}-elsewhere", DATA, seaweed)


@pytest.mark.slow
def test_one_run_has_six_columns_and_their_average(seaweed: ObjectStore, tmp_path: Path) -> None:
    write(tmp_path / "hub", "lmms-lab")
    settings = {
        "run": {"name": "benchmarks-test", "directory": str(tmp_path / "runs")},
        "store": {
            "url": "s3://awares/benchmarks-test",
            "endpoint": seaweed.config.endpoint,
            "retry_budget_s": 10,
        },
        "data": {"image_cache": str(tmp_path / "images")},
        "engine": {"kv_cache_gib": 0.25},
        "evaluate": {
            "policies": ["full", "low"],
            "benchmarks": list(BENCHMARKS),
            "benchmark_root": str(tmp_path / "hub"),
            "latency_questions": 2,
        },
    }
    with sessions.session(PlatformConfig.model_validate(settings)) as session:
        result = run(session)
    found = json.loads(result.path.read_text())["benchmarks"]
    assert list(found) == [*BENCHMARKS, "average"]
    assert [found[name]["full"]["n"] for name in BENCHMARKS] == [2, 2, 2, 3, 2, 1]
    assert set(found["pope"]["low"]["splits"]) == {"adversarial", "popular", "random"}
    assert 0.0 <= found["pope"]["low"]["f1"] <= 1.0 and found["ocrbench"]["full"]["total_of"] == 2
    six = [found[name]["low"]["accuracy"] for name in BENCHMARKS]
    assert found["average"]["low"]["accuracy"] == pytest.approx(sum(six) / 6)
    head, _, full, low, *_ = result.table.splitlines()
    assert head == f"| policy | {' | '.join(BENCHMARKS)} | average |"
    assert full.startswith("| full resolution | ") and full.endswith("(1.00) |")
    assert low.endswith("(0.25) |")
