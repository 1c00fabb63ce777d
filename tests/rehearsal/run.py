"""Runs the five jobs on the 7B model with few layers, and writes seen/<job>.json for each job.

    PYTHONPATH=.:platform python -m tests.rehearsal.run [--directory runs/rehearsal] [JOB ...]

Without a JOB, all jobs run in order. A job needs the results of the jobs before it.
"""

import argparse
import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from awares.mini.digits import SplitName
from awares_platform.config import PlatformConfig, load
from awares_platform.data.dataset import put_image, write_samples
from awares_platform.runtime import session
from awares_platform.runtime.ports import free_port
from awares_platform.store import ObjectStore
from tests.rehearsal import probe
from tests.rehearsal.endpoint import endpoint
from tests.rehearsal.memory import Sampler
from tests.rehearsal.pages import pages

JOBS = ("curate", "sft", "grpo", "evaluate", "serve")
TRAINERS = ("sft", "grpo")
SETUP = Path(__file__).with_name("setup.toml")
AWARES = "from awares_platform.cli.main import main; main()"
QUESTIONS = 2
"""The number of questions that the served policy answers."""


def options(directory: Path) -> list[str]:
    """Return overrides that place the run's files and the policy in `directory`."""
    place = directory.resolve()
    return [f"run.directory={place}", f"policy.base={place / 'policy'}"]


def prepare(directory: Path, overrides: Sequence[str]) -> None:
    """Write the policy and the data set, unless an earlier call has written them."""
    if not (directory / "policy" / "config.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        # Build the policy in another process. When that process ends, all its memory is free.
        script = [sys.executable, "-m", "tests.rehearsal.shallow_model"]
        subprocess.run([*script, str(directory / "policy")], check=True)
    config = load(SETUP, [*options(directory), *overrides])
    if not (directory / "pages").exists():
        with session.store_session(config) as resolved:
            write_pages(resolved)
        (directory / "pages").touch()


def write_pages(config: PlatformConfig) -> None:
    """Write the pages of the splits train and test to the store."""
    store, data = ObjectStore.from_config(config.store), config.data
    splits: dict[SplitName, int] = {"train": data.train_samples, "test": data.test_samples}
    for split, count in splits.items():
        samples = []
        for image, sample in pages(split, count, data.seed):
            put_image(store, image)
            samples.append(sample)
        write_samples(store, data.name, split, samples)


def rehearse(job: str, directory: Path, overrides: Sequence[str]) -> None:
    """Run one job, and write its measured speed and memory to seen/<job>.json.

    Raises SystemExit if the job fails, or if an earlier run has already finished the training.
    """
    events = directory / f"{job}.events"
    events.unlink(missing_ok=True)
    environment = {
        **os.environ,
        probe.FILE: str(events.resolve()),
        # When a tensor larger than this number of bytes is freed, the C library returns its memory
        # to the kernel at once.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
        # Turn off Ray's memory monitor, which could kill a process needlessly. It counts the pages
        # of mapped weights as used memory, although the kernel can drop these pages.
        "RAY_memory_monitor_refresh_ms": "0",
        "JUDGE_API_KEY": "none",
        "GROUNDING_API_KEY": "none",
    }
    started = time.monotonic()
    port = free_port()
    with endpoint() as url:
        places = [f"curate.{name}_endpoint.url={url}" for name in ("judge", "grounding")]
        settings = [*options(directory), *places, f"serve.port={port}", *overrides]
        command = [sys.executable, "-c", AWARES, job, "--config", str(SETUP)]
        process = subprocess.Popen([*command, *settings], env=environment)
        sampler = Sampler(process.pid)
        try:
            replies = ask(port, process) if job == "serve" else []
            status = process.wait()
        finally:
            process.kill()
            sampler.close()
    if status and job != "serve":
        raise SystemExit(f"awares {job} ended with status {status}")
    seen = [json.loads(line) for line in read_lines(events)]
    if job in TRAINERS and not any(event["event"] == "pass" for event in seen):
        raise SystemExit(
            f"{directory} holds a finished {job}; remove the directory, or name another"
        )
    report = {
        "seconds": time.monotonic() - started,
        "processes": {pid: asdict(memory) for pid, memory in sampler.seen.items()},
        "events": seen,
        "metrics": [json.loads(line) for line in read_lines(metrics_file(directory, job))],
        "replies": replies,
    }
    (directory / "seen").mkdir(exist_ok=True)
    (directory / "seen" / f"{job}.json").write_text(json.dumps(report, indent=1))


def metrics_file(directory: Path, job: str) -> Path:
    """Return the path of a job's metrics."""
    return directory / "rehearsal" / job / "metrics.jsonl"


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, or no lines if the file does not exist."""
    return path.read_text("utf-8").splitlines() if path.exists() else []


def ask(port: int, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Ask the served policy about some pages, end the job, and return the policy's replies."""
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        found = pages("test", QUESTIONS, seed=1)
        return [question(url, data, sample.question) for data, sample in found]
    finally:
        process.send_signal(signal.SIGTERM)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the endpoint lists its model. Raises SystemExit if the job ends first."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/v1/models", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise SystemExit(f"awares serve ended with status {process.returncode} before it was ready")


def question(url: str, image: bytes, text: str) -> dict[str, Any]:
    """Ask one question, and return the reply with its duration in seconds."""
    address = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": text},
    ]
    body = {"model": "awares", "messages": [{"role": "user", "content": content}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=300) as answer:
        return {**json.load(answer), "seconds": time.monotonic() - started}


def main() -> None:
    """Run the jobs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("jobs", nargs="*", help="jobs to run, and overrides section.key=value")
    parser.add_argument("--directory", type=Path, default=Path("runs/rehearsal"))
    given = parser.parse_args()
    overrides = [word for word in given.jobs if "=" in word]
    jobs = [word for word in given.jobs if "=" not in word] or list(JOBS)
    prepare(given.directory, overrides)
    for job in jobs:
        rehearse(job, given.directory, overrides)


if __name__ == "__main__":
    main()
