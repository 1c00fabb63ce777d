"""Provides a tiny curated data set for the sft job, and functions that inspect a run of the job."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file

from awares.crops import CropId
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.mini.benchmark import generate_split
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.store import StoreConfig
from awares_platform.data.dataset import put_image, write_samples
from awares_platform.store import ObjectStore
from awares_platform.training.source import resolve
from tests.integration.standalone import disk

SAMPLES = 44


def curated(store: ObjectStore) -> Iterator[Sample]:
    """Store the images of the curated samples, and yield the samples with 0, 1 or 2 crops."""
    targets = ((), (CropId("4"),), (CropId("0"), CropId("5")))
    for index, (png, sample) in enumerate(generate_split("train", SAMPLES, 0)):
        crops = targets[index % 3]
        image = put_image(store, png)
        yield Sample(
            sample_id=sample.sample_id,
            image=image,
            question=sample.question,
            answer=sample.answer,
            kind=sample.kind,
            evidence=sample.evidence,
            label=Label.HR if crops else Label.LR,
            crops=crops,
        )


def named(config: PlatformConfig, name: str) -> PlatformConfig:
    """Return the configuration with another name of the run."""
    return config.model_copy(update={"run": config.run.model_copy(update={"name": name})})


def with_own_store(config: PlatformConfig, directory: Path) -> PlatformConfig:
    """Return the configuration of a job that starts its own SeaweedFS in `directory`.

    The function runs this SeaweedFS once, and writes the curated samples and images to it.
    """
    job = config.model_copy(
        update={
            "run": config.run.model_copy(update={"directory": directory / "runs"}),
            "store": StoreConfig(url="s3://awares/own", retry_budget_s=5),
        }
    )
    with disk(job) as store:
        write_samples(store, "tiny-curated", "train", list(curated(store)))
    return job


def weight_digests(config: PlatformConfig) -> dict[str, str]:
    """Map each tensor of the exported policy to the SHA-256 of its values."""
    store = ObjectStore.from_config(config.store)
    path = resolve(store, config.run.name, "sft", config.policy.base, FAMILY)
    return {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for name, tensor in load_file(path / "model.safetensors").items()
    }


def recorded(store: ObjectStore, run: str) -> bool:
    """Return whether Ray Train has recorded a checkpoint of the run in its snapshot file.

    A killed run can resume only from a recorded checkpoint.
    """
    keys = [info.key for info in store.list(f"runs/{run}/checkpoints/sft")]
    snapshots = [key for key in keys if key.endswith("/checkpoint_manager_snapshot.json")]
    return any(b"step-" in store.get(key) for key in snapshots)


def finished_steps(rows: Path) -> int:
    """Return the number of steps in the metrics file `rows`."""
    return len(rows.read_text().splitlines()) if rows.exists() else 0
