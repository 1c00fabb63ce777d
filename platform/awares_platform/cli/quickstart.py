"""`awares quickstart`: the five jobs on one machine, then one question to the served policy.

    curate ── sft ── grpo ── evaluate      each a process of its own (steps.py): its memory is free before the next one starts
                                 └── serve ── one held-out question over HTTP ── results.json, report.html

progress.json says what has finished, for which setup: the same setup goes on from there, any other one starts clean.
"""

import hashlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awares.errors import ConfigError
from awares_platform import report
from awares_platform.cli.ask import Reply, ask
from awares_platform.cli.job_process import Pace, run_job
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images
from awares_platform.report.records import EpisodeRecord, read_run
from awares_platform.runtime.run import versions
from awares_platform.store import ObjectStore

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


@dataclass(slots=True)
class State:
    """What this run of the quickstart has done. `wall_s` counts interrupted attempts too.

    Example:
        State(Path("runs/quickstart/progress.json"), "5f2a...", ["curate"], {"curate": 71.3})
    """

    path: Path
    fingerprint: str
    finished: list[str] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)

    def save(self) -> None:
        """Replace progress.json."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        body = {"fingerprint": self.fingerprint, "finished": self.finished, "wall_s": self.wall_s}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
        temporary.replace(self.path)

    @contextmanager
    def timed(self, job: str) -> Iterator[None]:
        """Count the time of a job, and the job as finished unless it raises."""
        started = time.monotonic()
        try:
            yield
            if job not in self.finished:
                self.finished.append(job)
        finally:
            self.wall_s[job] = round(self.wall_s.get(job, 0.0) + time.monotonic() - started, 1)
            self.save()


def run(config: PlatformConfig, fresh: bool = False) -> None:
    """Run what has not finished yet, serve, ask, report. `fresh` discards an earlier run and its labels. Ray and the store are up."""
    if "awares" not in config.evaluate.policies:
        raise ConfigError(
            f"evaluate.policies={list(config.evaluate.policies)} must hold awares: the quickstart serves it and asks it a question"
        )
    directory = Path(config.run.directory) / config.run.name
    state = prepare(config, directory, fresh)
    pace = Pace(JOBS, state.finished)
    for job in JOBS[:-1]:
        if job in state.finished:
            pace.skip(job)
            continue
        with state.timed(job):
            run_job(job, config, directory, pace)
    state.wall_s.pop("serve", None)  # this one is done anew each time: it is what the run ends with
    with state.timed("serve"):
        question, reply = serve_and_ask(config, directory, pace)
    results = write_results(config, directory, state.wall_s)
    page = report.run(config)
    print(closing(question, reply, results, page, pace), flush=True)


def prepare(config: PlatformConfig, directory: Path, fresh: bool) -> State:
    """The state to go on from; a new one, with an empty run, for `fresh` or for another setup than last time's.

    Raises ConfigError rather than discard a run that no quickstart made, and for a damaged progress.json.
    """
    path = directory / "progress.json"
    state = State(path, fingerprint(config))
    earlier = None if fresh else _earlier(path)
    if earlier and earlier.fingerprint == state.fingerprint:
        state.finished = [job for job in earlier.finished if (directory / job).is_dir()]
        state.wall_s = earlier.wall_s
        return state
    store = ObjectStore.from_config(config.store)
    if (
        not path.exists()
        and not fresh
        and (directory.exists() or any(store.list(f"runs/{config.run.name}/")))
    ):
        raise ConfigError(
            f"run {config.run.name!r} exists, and no quickstart made it: choose another run.name, or discard it with --fresh"
        )
    store.delete_prefix(f"runs/{config.run.name}/")
    if fresh:
        store.delete_prefix(f"datasets/{config.data.curated}/")
    shutil.rmtree(directory, ignore_errors=True)
    state.save()
    return state


def _earlier(path: Path) -> State | None:
    """What progress.json says, if there is one. Raises ConfigError for a damaged one."""
    try:
        body = json.loads(path.read_text("utf-8"))
        return State(path, body["fingerprint"], list(body["finished"]), dict(body["wall_s"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); begin the run again with --fresh"
        ) from None


def fingerprint(config: PlatformConfig) -> str:
    """Digest of what the results depend on: the setup without addresses, which change from session to session."""
    settings = config.model_dump(
        mode="json",
        exclude={
            "run": {"directory", "worker_logs"},
            "store": {"endpoint", "retry_budget_s"},
            "serve": True,
        },
    )
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def serve_and_ask(
    config: PlatformConfig, directory: Path, pace: Pace
) -> tuple[EpisodeRecord, Reply]:
    """Start the endpoint on a free port of this machine, ask one held-out question over HTTP, stop the endpoint."""
    from awares_platform.serve.app import serving

    pace.start("serve")
    question = held_out_question(config, directory)
    image = directory / "question.png"
    image.write_bytes(
        Images(ObjectStore.from_config(config.store), config.data.image_cache).read(question.image)
    )
    settings = config.serve.model_copy(
        update={"policy": "awares", "host": "127.0.0.1", "port": free_port(), "token_env": None}
    )
    with serving(config.model_copy(update={"serve": settings})) as url:
        pace.show("serve", f"asking at {url}")
        reply = ask(image, question.question, url)
    pace.finish("serve")
    return question, reply


def held_out_question(config: PlatformConfig, directory: Path) -> EpisodeRecord:
    """A question of the test split that the policy asked for crops and got right, if there is one."""
    episodes = read_run(directory, config.run.name, config.run.seed).episodes["awares"]
    return max(
        episodes, key=lambda episode: (bool(episode.crops) and episode.correct, episode.correct)
    )


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_results(
    config: PlatformConfig, directory: Path, wall_s: dict[str, float]
) -> dict[str, Any]:
    """Write results.json: each policy's figures, the jobs' seconds, versions and seed."""
    evaluated = json.loads((directory / "evaluate" / "results.json").read_text("utf-8"))
    results = {
        "policies": {
            name: {key: row[key] for key in REPORTED} for name, row in evaluated["policies"].items()
        },
        "wall_s": {job: wall_s[job] for job in JOBS},
        "versions": versions(),
        "seed": config.run.seed,
    }
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return results


def closing(
    question: EpisodeRecord, reply: Reply, results: dict[str, Any], page: Path, pace: Pace
) -> str:
    """What the quickstart ends with."""
    table = (page.parent / "evaluate" / "table.md").read_text("utf-8").strip()
    total = sum(results["wall_s"].values())
    return (
        f"\n{table}\n\nAsked over HTTP: {question.question}   (truth: {question.truth})\n{reply.lines()}\n\n"
        f"{pace.clock(total)} in all. Results: {page.parent / 'results.json'}   Report: {page}\n"
        f"Serve it again: awares serve run.name={page.parent.name}\n"
        f"and ask it: awares ask {page.parent / 'question.png'} '{question.question}'"
    )
