"""Reads the questions of an evaluation, either from a data set or from benchmarks."""

import logging
from collections.abc import Sequence

from awares.evaluation.benchmarks import BENCHMARKS
from awares.sample import Sample
from awares_platform.config.data import DataConfig
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.data.dataset import Images, Split, ensure_mini, read_manifest, read_split
from awares_platform.data.intake.benchmark import SPLIT, dataset_of, import_benchmark, splits_of
from awares_platform.data.intake.benchmark import read_benchmark as read_one
from awares_platform.data.manifest import samples_digest
from awares_platform.store import ObjectStore

log = logging.getLogger(__name__)


def prepare(evaluate: EvaluateConfig, data: DataConfig, store: ObjectStore) -> None:
    """Import the missing benchmarks. Without benchmarks, make AwaRes-Mini if it is configured.

    Raises DataError if evaluate.benchmark_root does not hold a benchmark.
    """
    for name in evaluate.benchmarks:
        if note := import_benchmark(name, evaluate.benchmark_root, data, store):
            log.warning("%s", note)
    if data.source == "mini" and not evaluate.benchmarks:
        ensure_mini(data, store)


def questions_digest(evaluate: EvaluateConfig, data: DataConfig, store: ObjectStore) -> str:
    """Return the digest of the questions. For benchmarks, return the name and digest of each.

    Raises DataError if the questions do not exist.
    """
    if not evaluate.benchmarks:
        return samples_digest(read_manifest(store, data.name, SPLIT))
    parts = {
        name: samples_digest(read_manifest(store, dataset_of(name), SPLIT))
        for name in evaluate.benchmarks
    }
    return " ".join(f"{name} {digest}" for name, digest in parts.items())


def read_questions(evaluate: EvaluateConfig, data: DataConfig, store: ObjectStore) -> Split:
    """Read the questions, one benchmark after the other."""
    if not evaluate.benchmarks:
        return read_split(store, data.name, SPLIT, min(evaluate.questions, data.test_samples))
    parts = [read_one(store, name, evaluate.benchmark_questions) for name in evaluate.benchmarks]
    return Split(
        tuple(sample for part in parts for sample in part.samples),
        tuple(columns for part in parts for columns in part.columns),
        tuple(fault for part in parts for fault in part.faults),
    )


def images_of(evaluate: EvaluateConfig, data: DataConfig, store: ObjectStore) -> Images:
    """Return the images of the questions."""
    if not evaluate.benchmarks:
        return Images.of(store, data)
    return Images(store, data.image_cache, splits=splits_of(evaluate.benchmarks))


def benchmark_of(evaluate: EvaluateConfig, sample: Sample) -> str:
    """Return the benchmark of a question, or "" for a question of a data set."""
    return sample.sample_id.partition("/")[0] if evaluate.benchmarks else ""


def token_limits(evaluate: EvaluateConfig, samples: Sequence[Sample]) -> list[int]:
    """Return, for each sample, the largest number of tokens that a turn may sample."""
    names = (benchmark_of(evaluate, sample) for sample in samples)
    return [BENCHMARKS[name].max_tokens if name else evaluate.max_tokens for name in names]
