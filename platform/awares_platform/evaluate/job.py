"""Lets every policy answer the same held-out questions, and compares the policies.

    questions --> Evaluator (actor, engine) --episodes of full, low, sft, awares--> scores, labels
                                                 |                  ^                     |
                                                 +--> cascade.py ---+                     v
                                           threshold, escalate         results.json, table.md

Each policy first answers evaluate.latency_questions questions, one at a time. Latencies are
measured on these questions only.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awares.environment import Environment
from awares.errors import DataError, MissingPolicy
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.evaluate import JOINED_FROM, EvaluateConfig, PolicyToEvaluate
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.run import RunConfig
from awares_platform.data.dataset import Images, Split
from awares_platform.data.image_sizes import sample_sizes
from awares_platform.evaluate.by_benchmark import benchmark_metrics
from awares_platform.evaluate.cascade import PlayedBy
from awares_platform.evaluate.episode_rows import encode_episodes
from awares_platform.evaluate.labels import EvaluationReplies, bare, label
from awares_platform.evaluate.playing import latency_subset, play_all
from awares_platform.evaluate.policies import POLICIES, Weights
from awares_platform.evaluate.questions import (
    images_of,
    prepare,
    questions_digest,
    read_questions,
)
from awares_platform.evaluate.results import (
    caption,
    comparisons,
    label_counts,
    policy_metrics,
    tables,
)
from awares_platform.evaluate.scored import Scored, score_all
from awares_platform.method.chat_client import KeptReply
from awares_platform.method.environment import environment
from awares_platform.method.family import model_family
from awares_platform.method.ratios import log_ratios
from awares_platform.method.reward import build_reward
from awares_platform.runtime.awaited import awaited
from awares_platform.runtime.job_lease import hold, run_lease
from awares_platform.runtime.run import Run
from awares_platform.runtime.tracking.samples import sample_row
from awares_platform.runtime.tracking.tracker import SampleRow
from awares_platform.store import ObjectStore
from awares_platform.training.recipe import Recipe, evaluate_recipe, label_recipe

log = logging.getLogger(__name__)

SPLIT = "test"


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """The result of the evaluate job.

    Example:
        EvaluateResult(
            {"policies": {...}}, "| policy | ...", Path("evaluate/results.json"),
            "runs/mini/evaluate", wall_s=155.0,
        )
    """

    results: dict[str, Any]
    """Content of results.json (see results.py)."""
    table: str
    """Markdown table of the results."""
    path: Path
    """Local path of results.json."""
    key: str
    """Prefix of all files of the job in the store."""
    wall_s: float
    """Duration of the job in seconds."""

    def summary(self, store: str) -> str:
        """Return the table and the paths of the results. `store` is the store's address."""
        return (
            f"{self.table}\n\n{caption(self.results)}\n"
            f"evaluate: {len(self.results['policies'])} policies on "
            f"{self.results['questions']:,} questions in {self.wall_s:.0f} s, "
            f"{self.results['unusable']:,} unusable questions\n"
            f"results: {self.path} and {store}/{self.key}/results.json"
        )


def run(config: PlatformConfig) -> EvaluateResult:
    """Evaluate evaluate.policies and write the results to the store.

    Raises JobRefused if another evaluate job of this run is alive.
    Raises JobFenced if another evaluate job takes over this run.
    Raises PolicyError, after a wait of up to run.wait_s seconds, if a policy is missing or stale.
    Raises DataError if no question is usable.
    Raises EngineFailure if the engine fails for over 5 % of a policy's questions.
    """
    started = time.monotonic()
    store = ObjectStore.from_config(config.store)
    with hold(store, run_lease(config.run.name, "evaluate"), "evaluate"):
        return _evaluate(config, store, started)


def _evaluate(config: PlatformConfig, store: ObjectStore, started: float) -> EvaluateResult:
    """Evaluate the policies. `started` is the monotonic time of the job's start."""
    inputs = (config.policy, config.grpo, config.evaluate.policies, config.method)
    awaited("evaluate", config.run.wait_s, lambda: check_policies(store, config.run.name, *inputs))
    prepare(config.evaluate, config.data, store)
    with Run(config, "evaluate", recipe_of(config, store)) as record:
        split = read_questions(config.evaluate, config.data, store)
        images = images_of(config.evaluate, config.data, store)
        sizes = sample_sizes(images, [sample.image for sample in split.samples])
        log_ratios(sizes, config.method, model_family(config.policy))
        played = play_all(config, split.samples)
        results = conclude(config, store, record, split, played)
    path, wall_s = record.directory / "results.json", time.monotonic() - started
    return EvaluateResult(results, tables(results), path, record.key, wall_s)


def conclude(
    config: PlatformConfig, store: ObjectStore, record: Run, split: Split, played: PlayedBy
) -> dict[str, Any]:
    """Score and label the episodes, write all files, and return the results.

    The episodes are written before the judge is asked, so that a failing judge loses no answer.
    """
    played = usable(played)
    images = images_of(config.evaluate, config.data, store)
    labelled, unpaid = bare(played), 0
    scored = _scored(config, split, played, labelled)
    write_episodes(store, record, scored)
    # For benchmarks, do not ask the judge: the 18,805 questions of all six may cost too much.
    if not config.evaluate.benchmarks:
        prefix, budget = config.data.replies_prefix, config.curate.budget
        replies = EvaluationReplies.load(store, prefix, KeptReply, budget)
        parts = (config.method, config.curate, model_family(config.policy))
        labelled, unpaid = label(*parts, played, images, replies)
        scored = _scored(config, split, played, labelled)
    results = assemble(
        config.run,
        config.evaluate,
        environment(config.method),
        scored,
        labelled,
        unusable=len(split.samples) - len(labelled),
        faults=len(split.faults),
        unpaid=unpaid,
    )
    write_files(store, record, results, scored)
    rows, trained = results["policies"], _trained(store, config.run.name)
    record.series(trained, {name: _metrics(rows[name]) for name in rows})
    chosen = scored[list(scored)[-1]][: config.tracking.samples]
    record.samples(trained, lambda: [_sample_row(one, images) for one in chosen])
    return results


def _scored(
    config: PlatformConfig, split: Split, played: PlayedBy, labelled: dict[str, Sample]
) -> dict[str, list[Scored]]:
    """Return the scored episodes of each policy."""
    subset = latency_subset(config.evaluate, config.run.seed, split.samples)
    alone = {sample.sample_id for sample in subset}
    reward = build_reward(config.method)
    name, version = config.evaluate.scorer, config.evaluate.scorer_version
    return {
        policy: score_all(rows, labelled, name, alone, reward, version)
        for policy, rows in played.items()
    }


def recipe_of(config: PlatformConfig, store: ObjectStore) -> Recipe:
    """Return the recipe of the evaluation, which records how the results were made.

    Raises DataError if the test split does not exist.
    """
    from awares_platform.training.lineage import policy_digest

    run, base = config.run.name, config.policy.base
    names: set[Weights] = {"base", *(POLICIES[name].weights for name in config.evaluate.policies)}
    weights = {name: policy_digest(store, run, name, base) for name in names}
    labels = label_recipe(config.method, config.engine, config.curate, str(weights["base"]))
    data = questions_digest(config.evaluate, config.data, store)
    return evaluate_recipe(config, labels, weights, data)


def write_files(
    store: ObjectStore,
    record: Run,
    results: Mapping[str, Any],
    scored: Mapping[str, Sequence[Scored]],
) -> None:
    """Write the episodes, the table and the results to the run's directory and to the store."""
    write_episodes(store, record, scored)
    table = f"{tables(results)}\n\n{caption(results)}\n".encode()
    _write(store, record, "table.md", table)
    _write(store, record, "results.json", json.dumps(results, indent=1).encode())


def write_episodes(store: ObjectStore, record: Run, scored: Mapping[str, Sequence[Scored]]) -> None:
    """Write the episodes of each policy to the run's directory and to the store."""
    for policy, rows in scored.items():
        _write(store, record, f"episodes-{policy}.parquet", encode_episodes(rows))


def _write(store: ObjectStore, record: Run, name: str, data: bytes) -> None:
    (record.directory / name).write_bytes(data)
    store.put(f"{record.key}/{name}", data)


def check_policies(
    store: ObjectStore,
    run: str,
    policy: PolicyConfig,
    grpo: GrpoConfig,
    policies: Sequence[PolicyToEvaluate],
    method: MethodConfig,
) -> None:
    """Raise MissingPolicy unless `run` holds the trained policies that `policies` need.

    Raises PolicyError if a policy is stale (training/lineage.py), or was trained with other input
    settings than `method` (training/inputs.py).
    """
    from awares_platform.training.export import policy_key, read_meta
    from awares_platform.training.inputs import check_stored
    from awares_platform.training.lineage import check_lineage
    from awares_platform.training.source import JOBS

    needed: set[Weights] = {POLICIES[name].weights for name in policies}
    needed.discard("base")
    missing = sorted(name for name in needed if read_meta(store, run, name) is None)
    if missing:
        jobs = " and ".join(f"`{JOBS[name]}`" for name in missing)
        rest = [name for name in policies if not _weights(name) & {*missing}]
        raise MissingPolicy(
            f"run {run!r} has no policy {' or '.join(missing)}: "
            f"run {jobs}, or set evaluate.policies={rest}"
        )
    # Check "awares" before "sft". A stale "awares" is an error at once, but a stale "sft" may be
    # replaced while this job waits.
    for name in sorted(needed):
        check_lineage(store, run, name, policy.base, grpo.start)
        again = JOBS["sft"] if name == "sft" else None
        check_stored(store, policy_key(run, name), method, again)


def _weights(policy: str) -> set[str]:
    """Return the weights of a policy, and the weights of the policies from which it is built."""
    return {POLICIES[name].weights for name in (policy, *JOINED_FROM.get(policy, ()))}


def usable(played: PlayedBy) -> PlayedBy:
    """Return the episodes of the questions that every policy could play.

    A policy cannot play a question with an unreadable image or with too long a text.

    Raises DataError if no question is left.
    """
    broken = {
        one.sample.sample_id: one.fault
        for rows in played.values()
        for one in rows
        if one.episode is None
    }
    for fault in list(broken.values())[:10]:
        log.warning("skipped %s", fault)
    kept = {
        policy: [one for one in rows if one.sample.sample_id not in broken]
        for policy, rows in played.items()
    }
    if not all(kept.values()):
        raise DataError(
            f"no question of split {SPLIT!r} can be played; "
            f"the first: {next(iter(broken.values()))}"
        )
    return kept


def assemble(
    run: RunConfig,
    evaluate: EvaluateConfig,
    asked: Environment,
    scored: dict[str, list[Scored]],
    labelled: dict[str, Sample],
    *,
    unusable: int,
    faults: int,
    unpaid: int,
) -> dict[str, Any]:
    """Return the content of results.json."""
    return {
        "policies": {
            policy: policy_metrics(rows, POLICIES[policy].may_call, run.seed, asked)
            for policy, rows in scored.items()
        },
        "comparisons": comparisons(scored, run.seed),
        **_benchmarks(run, evaluate, scored),
        "questions": len(labelled),
        "unusable": unusable + faults,
        "labels": {**label_counts(list(labelled.values()), asked), "unpaid": unpaid},
        "latency": {
            "questions": min(evaluate.latency_questions, len(labelled)),
            "concurrency": 1,
            "caches": "cold",
        },
        "scorer": [evaluate.scorer, evaluate.scorer_version],
        "run": run.name,
        "seed": run.seed,
    }


def _benchmarks(
    run: RunConfig, evaluate: EvaluateConfig, scored: Mapping[str, Sequence[Scored]]
) -> dict[str, Any]:
    names, version = evaluate.benchmarks, evaluate.scorer_version
    found = benchmark_metrics(scored, names, run.seed, version) if names else None
    return {} if found is None else {"benchmarks": found}


def _trained(store: ObjectStore, run: str) -> int:
    """Return the number of GRPO steps of the run's policy `awares`, or 0 without this policy."""
    from awares_platform.training.export import read_meta

    return int((read_meta(store, run, "awares") or {}).get("step", 0))


def _sample_row(one: Scored, images: Images) -> SampleRow:
    image, correct = images(one.episode.image), one.score >= 0.5
    return sample_row(one.sample, one.episode, image, correct=correct, reward=one.reward)


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    names = (
        "accuracy",
        "reward",
        "rtr_token",
        "rtr_pixel",
        "call_rate",
        "latency_p50_s",
        "latency_p95_s",
    )
    return {name: row[name] for name in names if row[name] is not None}
