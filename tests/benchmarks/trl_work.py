"""Prepares the work of tests/benchmarks/trl.py, and the Python environment of TRL.

- DIRECTORY/policy: the policy from which all runs start, trained only if it is missing
- DIRECTORY/work.json, images/: the settings and the ordered questions for TRL
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images, read_split
from awares_platform.grpo.prompts import Prompts, labelled
from awares_platform.method.family import model_family
from awares_platform.runtime.session import store_session
from awares_platform.store import ObjectStore
from awares_platform.training.curated_set import with_labels
from awares_platform.training.source import resolve

ROOT = Path(__file__).parents[2]
LOCK = Path(__file__).with_name("trl.txt")
SAMPLES = 2048
_AWARES = "from awares_platform.cli.main import main; main()"
_REWARD = (
    "answer_weight",
    "alpha_miss",
    "alpha_use",
    "lambda_area",
    "malformed_cost",
    "similarity_model",
)
_GRPO = (
    "groups_per_step",
    "group_size",
    "micro_batch",
    "max_tokens",
    "temperature",
    "learning_rate",
    "max_grad_norm",
    "kl_beta",
    "clip",
)


def python(environment: Path) -> Path:
    """Return the path of the Python program in TRL's environment.

    If the environment does not match the lock file, install it with uv from a package index.
    """
    made, lock = environment / "installed", LOCK.read_text("utf-8")
    program = environment / "bin" / "python"
    if made.exists() and made.read_text("utf-8") == lock:
        return program
    uv = shutil.which("uv") or str(ROOT / ".tools/uv/bin/uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", environment], check=True)
    subprocess.run(
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", program, LOCK], check=True
    )
    made.write_text(lock, "utf-8")
    return program


def setup(directory: Path, name: str, steps: int, **grpo: Any) -> PlatformConfig:
    """Return the setup of the run `name`, whose store and files are in `directory`."""
    return PlatformConfig.model_validate(
        {
            "run": {"name": name, "directory": str(directory)},
            "store": {"url": "s3://awares/trl"},
            "data": {
                "train_samples": SAMPLES,
                "test_samples": 8,
                "image_cache": str(directory / "cache"),
            },
            "engine": {"dtype": "float32"},
            "grpo": {"steps": steps, "clip": 0.2, **grpo},
        }
    )


def started_from(policy: Path, config: PlatformConfig) -> PlatformConfig:
    """Return a setup whose GRPO starts from `policy`."""
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"base": str(policy)}),
            "grpo": config.grpo.model_copy(update={"start": "base"}),
        }
    )


def command(job: str, config: PlatformConfig, directory: Path) -> list[str]:
    """Write the setup to `directory`, and return the command that runs the job with this setup."""
    file = directory / f"{config.run.name}-{job}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config.model_dump_json(indent=1), "utf-8")
    return [sys.executable, "-c", _AWARES, job, "--config", str(file)]


def prepare(directory: Path, tell: Any) -> Path:
    """Return the directory of the SFT policy from which TRL and this project start.

    If the policy does not exist yet, label questions and train the policy first.
    """
    policy, config = directory / "policy", setup(directory, "prepared", 1)
    if policy.exists():
        return policy
    for job in ("curate", "sft"):
        tell(f"preparing: awares {job}")
        subprocess.run(command(job, config, directory), check=True, stdout=subprocess.DEVNULL)
    with store_session(config) as config:
        store, family = ObjectStore.from_config(config.store), model_family(config.policy)
        found = resolve(store, config.run.name, "sft", config.policy.base, family)
        shutil.copytree(found, policy)
    return policy


def write_work(directory: Path, policy: Path, config: PlatformConfig, threads: int) -> None:
    """Write work.json (settings, and questions in this project's order) and images/ for TRL."""
    count = config.grpo.steps * config.grpo.groups_per_step
    with store_session(config) as local:
        store = ObjectStore.from_config(local.store)
        local = with_labels(local, store)
        samples = labelled(read_split(store, local.data.curated, "train").samples)
        prompts = Prompts(samples, local.run.seed)
        ordered = [prompts[number].sample for number in range(count)]
        images = Images.of(store, local.data)
        (directory / "images").mkdir(exist_ok=True)
        for digest in {sample.image for sample in ordered}:
            (directory / "images" / digest).write_bytes(images.read(digest))
    method, grpo = config.method.model_dump(), config.grpo.model_dump()
    work = {
        "policy": str(policy),
        "dtype": config.engine.dtype,
        "seed": config.run.seed,
        "steps": config.grpo.steps,
        "trl_threads": threads,
        "rule": asdict(config.method.rule),
        "low_ratio": config.method.low_ratio,
        "reward": {name: method[name] for name in _REWARD},
        **{name: grpo[name] for name in _GRPO},
        "samples": [
            {
                "id": sample.sample_id,
                "image": sample.image,
                "question": sample.question,
                "answer": sample.answer,
                "label": str(sample.label),
            }
            for sample in ordered
        ],
    }
    (directory / "work.json").write_text(json.dumps(work), "utf-8")
