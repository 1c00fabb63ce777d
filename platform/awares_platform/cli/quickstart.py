"""`awares quickstart` runs the five jobs on one machine, then asks the served policy a question.

The jobs are curate, sft, grpo, evaluate and serve. The question is a held-out question, which the
command asks over HTTP. The command then writes results.json and report.html.

Each job except serve runs in a separate process (job_process.py), which frees the job's memory when
it ends. progress.json holds the finished jobs and a digest of the setup. The next quickstart skips
the finished jobs if its setup has the same digest. Otherwise the next quickstart runs all jobs
again.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from awares.errors import ConfigError
from awares_platform import report
from awares_platform.cli.ask import Reply, ask
from awares_platform.cli.job_process import run_job
from awares_platform.cli.pace import Pace, typical
from awares_platform.cli.quickstart_state import QuickstartState, read_state
from awares_platform.cli.terminal_table import for_terminal
from awares_platform.config import PlatformConfig
from awares_platform.config.data import DataConfig
from awares_platform.config.run import RunConfig
from awares_platform.config.store import StoreConfig
from awares_platform.data.dataset import Images
from awares_platform.data.intake.benchmark import splits_of
from awares_platform.method.family import model_family
from awares_platform.report.records import EpisodeRecord, read_run
from awares_platform.runtime.job_lease import dataset_lease, hold, run_lease, serve_leases
from awares_platform.runtime.ports import free_port
from awares_platform.runtime.run import versions
from awares_platform.store import ObjectStore
from awares_platform.training.curated_set import recorded_labels

JOBS = ("curate", "sft", "grpo", "evaluate", "serve")
REPORTED = (
    "accuracy",
    "accuracy_ci95",
    "rtr_token",
    "rtr_pixel",
    "call_rate",
    "reward",
    "latency_p50_s",
    "n",
)


def run(config: PlatformConfig, fresh: bool = False) -> None:
    """Run the unfinished jobs, serve the policy, ask it a question and write the report.

    The caller must have opened a session. `fresh` discards an earlier run and its labels.

    Raises ConfigError if evaluate.policies lacks "awares".
    Raises JobRefused if another quickstart of this run is at work.
    """
    if "awares" not in config.evaluate.policies:
        raise ConfigError(
            f"evaluate.policies={list(config.evaluate.policies)} must hold awares: "
            "the quickstart serves it and asks it a question"
        )
    store, lease = (
        ObjectStore.from_config(config.store),
        f"quickstarts/{config.run.name}/lease.json",
    )
    with hold(store, lease, "quickstart"):
        _run(config, fresh)


def _run(config: PlatformConfig, fresh: bool) -> None:
    directory = Path(config.run.directory) / config.run.name
    state = prepare(config, directory, fresh)
    pace = Pace(typical(config), state.finished)
    for job in JOBS[:-1]:
        if job in state.finished:
            pace.skip(job)
            continue
        with state.timed(job):
            run_job(job, config, directory, pace)
    for seconds in (state.wall_s, state.cpu_s):
        seconds.pop("serve", None)  # Every quickstart measures serve anew.
    with state.timed("serve"):
        question, reply = serve_and_ask(config, directory, pace)
    results = write_results(directory, state, config.run.seed)
    page = report.run(config, _images(config.store, config.data))
    from awares_platform.serve.job import base_url

    url = base_url(config.serve)
    print(closing(question, reply, results, page, url, pace), flush=True)


def prepare(config: PlatformConfig, directory: Path, fresh: bool) -> QuickstartState:
    """Return the state of the earlier quickstart of this run, or a new state.

    If the setup has changed or `fresh` is true, delete the run and return a new state. If `fresh`
    is true, also delete the run's labels and answers.

    Raises JobRefused, and deletes nothing, if a running job uses the run.
    Without `fresh`, raises ConfigError if progress.json is damaged or no quickstart made the run.
    """
    path = directory / "progress.json"
    state = QuickstartState(path, fingerprint(config))
    earlier = None if fresh else read_state(path)
    if earlier and earlier.fingerprint == state.fingerprint:
        state.finished = [job for job in earlier.finished if (directory / job).is_dir()]
        state.wall_s, state.cpu_s = earlier.wall_s, earlier.cpu_s
        return state
    store = ObjectStore.from_config(config.store)
    if not (path.exists() or fresh):
        if directory.exists() or any(store.list(f"runs/{config.run.name}/")):
            raise ConfigError(
                f"run {config.run.name!r} exists, and no quickstart made it: "
                "choose another run.name, or discard it with --fresh"
            )
    curated = recorded_labels(store, config.run.name, config.data, ("curate",)).curated
    _check_idle(store, config.run.name, curated if fresh else None)
    store.delete_prefix(f"runs/{config.run.name}/")
    if fresh:
        store.delete_prefix(f"datasets/{curated}/")
        store.delete_prefix(config.data.answers_prefix)
    shutil.rmtree(directory, ignore_errors=True)
    state.save()
    return state


def _check_idle(store: ObjectStore, run: str, curated: str | None) -> None:
    """Raise JobRefused if a job or an endpoint of the run is at work.

    Also raise it if a job is writing the curated data set `curated`.
    """
    jobs = [run_lease(run, job) for job in ("sft", "grpo", "evaluate")]
    leases = [(lease, "run.name") for lease in (*jobs, *serve_leases(store, run))]
    if curated is not None:
        leases.append((dataset_lease(curated), "data.name"))
    for lease, rename in leases:
        with hold(store, lease, "quickstart", rename):
            pass


def fingerprint(config: PlatformConfig) -> str:
    """Return a digest of the setup and of the base policy's files.

    The quickstart deletes an earlier run that has another digest. A new setting must therefore not
    change the digests of earlier setups.
    """
    from awares_platform.training.source import base_digest

    settings = config.model_dump(
        mode="json",
        exclude={
            "run": {"directory", "worker_logs"},
            "store": {"endpoint", "retry_budget_s", "addressing", "encryption", "kms_key"},
            "serve": True,
            "tracking": True,
        },
    )
    policy = base_digest(config.store, config.policy.base, model_family(config.policy))
    return hashlib.sha256(json.dumps([settings, policy], sort_keys=True).encode()).hexdigest()


def serve_and_ask(
    config: PlatformConfig, directory: Path, pace: Pace
) -> tuple[EpisodeRecord, Reply]:
    """Start the endpoint on a free port, ask it one held-out question, and stop it."""
    from awares_platform.serve.job import serving

    pace.start("serve")
    question = held_out_question(config.run, directory)
    image = directory / "question.png"
    images = _images(config.store, config.data)
    image.write_bytes(images.read(question.image))
    settings = config.serve.model_copy(
        update={"policy": "awares", "host": "127.0.0.1", "port": free_port(), "token_env": None}
    )
    served = config.model_copy(update={"serve": settings})
    with serving(served, say=lambda text: pace.show("serve", text)) as url:
        pace.show("serve", f"asking at {url}")
        reply = ask(image, question.question, url)
    pace.finish("serve")
    return question, reply


def _images(store: StoreConfig, data: DataConfig) -> Images:
    """Return the images of the data set and of the imported benchmarks."""
    return Images.of(ObjectStore.from_config(store), data, splits_of())


def held_out_question(config: RunConfig, directory: Path) -> EpisodeRecord:
    """Return a test question, preferably one that the trained policy answered right with crops.

    The second choice is a question that the policy answered right without crops.
    """
    episodes = read_run(directory.joinpath, config.name, config.seed).episodes["awares"]
    return max(episodes, key=lambda it: (bool(it.crops) and it.correct, it.correct))


def write_results(directory: Path, state: QuickstartState, seed: int) -> dict[str, Any]:
    """Write results.json, and return its content: metrics, seconds, versions and the seed."""
    evaluated = json.loads((directory / "evaluate" / "results.json").read_text("utf-8"))
    policies = {
        name: {key: row[key] for key in REPORTED} for name, row in evaluated["policies"].items()
    }
    results = {
        "policies": policies,
        "wall_s": {job: state.wall_s[job] for job in JOBS},
        "cpu_s": {job: state.cpu_s.get(job, {}) for job in JOBS},
        "versions": versions(),
        "seed": seed,
    }
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return results


def _command() -> str:
    """Return the command that calls `awares`, which may not be on the PATH."""
    beside = Path(sys.executable).with_name("awares")
    if shutil.which("awares") or not beside.exists():
        return "awares"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def closing(
    question: EpisodeRecord,
    reply: Reply,
    results: dict[str, Any],
    page: Path,
    url: str,
    pace: Pace,
) -> str:
    """Return the quickstart's final text: the table, the reply and the next commands.

    `page` is the path of the report. `url` is the address of the endpoint that the printed `serve`
    command starts.
    """
    table = for_terminal((page.parent / "evaluate" / "table.md").read_text("utf-8").strip())
    total = sum(results["wall_s"].values())
    command = _command()
    return (
        f"\n{table}\n\n"
        f"Asked over HTTP: {question.question}   (truth: {question.truth})\n{reply.lines()}\n\n"
        f"{pace.clock(total)} in all. Results: {page.parent / 'results.json'}   Report: {page}\n"
        f"Serve it again: {command} serve run.name={page.parent.name}\n"
        f"then open {url}/ in a browser,\n"
        f"or ask it here: {command} ask {page.parent / 'question.png'} '{question.question}'"
    )
