"""Decides which samples need crops, and chooses the crops (paper, section 3.2).

    train split --shards--> Answerer (actor) --answers--> label_shard (task) --> curated split
                            one engine: low view,         judge, grounding
                            then full resolution          model, crops

Ray Data runs both stages at the same time, and the driver adds up the counts. Each shard has a
fingerprint of its samples, the policy and the settings. A restarted job keeps the finished shards.
"""

import json
import logging
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, cast

from awares.environment import Environment, count_regions
from awares.errors import ConfigError
from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.curate import losses
from awares_platform.curate.answerer import Answerer
from awares_platform.curate.label_shard import label_shard
from awares_platform.curate.shards import SPLIT, Shard, is_finished, plan, write_curated
from awares_platform.data.dataset import (
    REPORTED_FAULTS,
    Split,
    ensure_mini,
    read_manifest,
    read_split,
    split_prefix,
)
from awares_platform.data.image_sizes import sample_sizes
from awares_platform.data.images import Images
from awares_platform.data.rows import encode_rows
from awares_platform.method.environment import environment
from awares_platform.method.family import model_family
from awares_platform.method.prompt_file import with_texts
from awares_platform.method.ratios import log_ratios
from awares_platform.runtime.job_lease import dataset_lease, hold
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.runtime.terminal import without_line
from awares_platform.store import ObjectStore
from awares_platform.training.curated_set import set_name
from awares_platform.training.recipe import Recipe, label_recipe, set_recipe
from awares_platform.training.source import base_digest

log = logging.getLogger(__name__)

COUNTED = ("lr", "hr", "dropped", "unusable")
EXPECTED = "has constructor arguments in the object store and max_restarts > 0"
"""Part of Ray's warning that a restarted actor may lack its constructor arguments. The job hides
this warning, because the driver keeps the arguments of Ray Data's actors."""
LABEL_CPUS = 0.1
"""The number of CPUs that Ray reserves for a labelling task, which mostly waits."""


@dataclass(frozen=True, slots=True)
class CurateResult:
    """Statistics of the curated split.

    Example:
        CurateResult(
            "datasets/mini-curated/train/", 4096, 3270, 826, {"0": 210}, 4, 0, 8, 2, wall_s=88.0
        )
    """

    dataset: str
    """Store prefix of the split."""
    samples: int
    """Number of labelled samples."""
    lr: int
    """Number of samples with the label LR."""
    hr: int
    """Number of samples with the label HR."""
    crops: dict[str, int]
    """Number of target crops of the HR samples, by crop id."""
    left_out: int
    """Number of samples without a label: unusable, or dropped because both answers are wrong."""
    source_faults: int
    """Number of unusable rows and files in the source split."""
    shards: int
    """Number of all shards."""
    shards_resumed: int
    """Number of shards that an earlier job has finished."""
    wall_s: float
    """Duration of the job in seconds."""

    @property
    def hr_share(self) -> float:
        """The number of HR samples divided by the number of labelled samples."""
        return self.hr / self.samples

    def summary(self, store: str) -> str:
        """Return two lines that summarise the result. `store` is the address of the store."""
        earlier = ""
        if self.shards_resumed:
            earlier = f", {self.shards_resumed} of {self.shards} shards from earlier"
        return (
            f"curate: {self.samples + self.left_out:,} questions in {self.wall_s:.0f} s{earlier}: "
            f"{self.hr:,} HR ({self.hr_share:.1%}), {self.lr:,} LR, "
            f"{self.left_out:,} without a label, {self.source_faults:,} unreadable rows\n"
            f"labels: {store}/{self.dataset}"
        )


def run(config: PlatformConfig) -> CurateResult:
    """Curate the train split.

    Raises JobRefused if another job curates this data set.
    Raises JobFenced if another job takes over the data set.
    Raises DataError if the split is missing or has no usable row.
    Raises EngineFailure if the engine fails for more than 5 % of a shard's answers.
    Raises EndpointError if an endpoint cannot be used.
    """
    started = time.monotonic()
    store = ObjectStore.from_config(config.store)
    if config.data.source == "mini":
        with hold(store, dataset_lease(config.data.name), "curate", "data.name"):
            ensure_mini(config.data, store)
    config = config.model_copy(update={"curate": with_texts(config.curate)})
    policy = base_digest(config.store, config.policy.base, model_family(config.policy))
    labels = label_recipe(config.method, config.engine, config.curate, policy)
    source = read_manifest(store, config.data.name, SPLIT)
    recipe = set_recipe(config.data, labels, source)
    config = _named(config, set_name(config.data, recipe))
    with hold(store, dataset_lease(config.data.curated), "curate", "data.name"):
        return _curate(config, store, labels, recipe, started)


def _named(config: PlatformConfig, name: str) -> PlatformConfig:
    """Return `config` with data.labels = `name`.

    Raises ConfigError if data.labels of `config` is already set to another name.
    """
    if config.data.labels not in ("", name):
        raise ConfigError(
            f"data.labels={config.data.labels} names labels of another recipe, and curate would "
            f"write {name}: clear data.labels, or go on with the job that reads the labels"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"labels": name})})


def _curate(
    config: PlatformConfig, store: ObjectStore, labels: Recipe, recipe: Recipe, started: float
) -> CurateResult:
    """Curate the train split. `started` is the monotonic time of the job's start.

    The labels of a shard depend on `labels`. The run and the manifest record `recipe`.
    """
    asked, family = environment(config.method), model_family(config.policy)
    name = config.data.curated
    with Run(config, "curate", recipe) as record:
        source = read_split(store, config.data.name, SPLIT, config.data.train_samples)
        images = Images.of(store, config.data)
        sizes = sample_sizes(images, [sample.image for sample in source.samples])
        log_ratios(sizes, config.method, family)
        shards = plan(config.data, source.samples, labels)
        pending = [shard for shard in shards if not is_finished(store, shard)]
        if len(pending) < len(shards):
            log.info(
                "resuming: %d of %d shards are finished", len(shards) - len(pending), len(shards)
            )
        resumed = len(shards) - len(pending)
        _label_all(config, pending, record, len(shards))
        write_curated(store, config.data, shards, recipe)
        curated = read_split(store, name, SPLIT)
        result = summarise(
            source,
            curated,
            asked,
            planned=len(source.samples),
            shards=len(shards),
            resumed=resumed,
            dataset=split_prefix(name, SPLIT),
            wall_s=time.monotonic() - started,
        )
        record.metrics(len(shards), _metrics(result))
    return result


def _label_all(config: PlatformConfig, pending: Sequence[Shard], record: Run, shards: int) -> None:
    """Label the pending shards. Show the progress, and record one row of metrics per shard."""
    with Progress(
        "curate", total=sum(len(shard.samples) for shard in pending), unit="questions"
    ) as progress:
        if pending:
            progress.say("starting the engine")
        rows = _label(config, pending, progress.say)
        for done, counts in enumerate(rows, start=shards - len(pending) + 1):
            for reason in json.loads(counts["faults"])[:REPORTED_FAULTS]:
                log.warning("%s: skipped %s", counts["key"], reason)
            record.metrics(done, shard_metrics(counts))
            progress.advance(
                sum(counts[name] for name in COUNTED),
                note=f"{counts['hr']} of the last {counts['lr'] + counts['hr']} HR",
            )


def shard_metrics(counts: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one shard. `counts` is the row that `label_shard` has returned.

    "lost/<reason>" is the number of samples that are unusable for this reason.
    """
    reasons = json.loads(counts["reasons"])
    metrics = {f"shard/{name}": float(counts[name]) for name in (*COUNTED, "dropped_boxes")}
    return metrics | {f"lost/{reason}": float(count) for reason, count in reasons.items()}


def _label(
    config: PlatformConfig, shards: Sequence[Shard], say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Run both stages, and yield the result of `label_shard` for each finished shard.

    `say` shows a line to the user.

    Raises the AwaresError of a failed stage, and LaunchError after too many lost processes.
    """
    if not shards:
        return
    with losses.shown(config.curate.engine_restarts, say) as reports:
        yield from _labelled(config, shards, reports)


def _labelled(
    config: PlatformConfig, shards: Sequence[Shard], reports: losses.LossReports
) -> Iterator[dict[str, Any]]:
    import ray.data

    from awares_platform.training.failure import unwrapped

    keep_from_terminal()
    curate = config.curate
    work = [
        {
            "key": shard.key,
            "fingerprint": shard.fingerprint,
            "answers": shard.answers,
            "rows": encode_rows(shard.samples),
        }
        for shard in shards
    ]
    dataset = ray.data.from_items(work, override_num_blocks=len(work))
    dataset.context.enable_progress_bars = False
    answered = dataset.map_batches(
        Answerer,
        fn_constructor_args=(config, reports),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(curate.engines, len(work))),
        num_cpus=curate.engine_cpus,
        num_gpus=curate.engine_gpus,
    )
    labelled = answered.map_batches(
        cast(Any, label_shard),
        fn_kwargs={"config": config, "reports": reports},
        batch_size=1,
        num_cpus=LABEL_CPUS,
    )
    with unwrapped():
        rows = iter(labelled.iter_rows())
        with without_line(EXPECTED):
            first = list(islice(rows, 1))
        for row in chain(first, rows):
            if row["failure"]:
                raise pickle.loads(row["failure"])
            yield row


def keep_from_terminal() -> None:
    """Keep Ray Data's progress messages off the terminal. Errors still appear there."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.level == logging.INFO:
            handler.setLevel(logging.ERROR)


def summarise(
    source: Split,
    curated: Split,
    asked: Environment,
    *,
    planned: int,
    shards: int,
    resumed: int,
    dataset: str,
    wall_s: float,
) -> CurateResult:
    """Return statistics of the whole curated split, including shards of an earlier job.

    `planned` is the number of samples before labelling. The target crops are counted for each
    region of `asked`, the configured environment.
    """
    labels = Counter(sample.label for sample in curated.samples)
    crops = [crop for sample in curated.samples for crop in sample.crops]
    counts = count_regions(crops, asked.regions)
    return CurateResult(
        dataset=dataset,
        samples=len(curated.samples),
        lr=labels[Label.LR],
        hr=labels[Label.HR],
        crops={crop: count for crop, count in counts.items() if count},
        left_out=planned - len(curated.samples),
        source_faults=len(source.faults),
        shards=shards,
        shards_resumed=resumed,
        wall_s=wall_s,
    )


def _metrics(result: CurateResult) -> dict[str, float]:
    counts = {
        name: getattr(result, name)
        for name in ("samples", "lr", "hr", "left_out", "source_faults", "shards", "shards_resumed")
    }
    metrics = {f"curate/{name}": float(value) for name, value in counts.items()} | {
        "curate/hr_share": result.hr_share
    }
    return metrics | {f"crops/{crop}": float(count) for crop, count in result.crops.items()}
