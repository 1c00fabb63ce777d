"""Keeps the training state of chosen steps in the store, until the job deletes it.

    every rank --its slices (shards.py)--> a local directory
               --in a thread--> runs/<run>/snapshots/<job>/v00000020/
               --last--> .../done/<rank>, which holds the number of ranks

A snapshot has the files of a checkpoint (checkpoint.py). Checkpoints serve to resume a job, and
older checkpoints are deleted. A snapshot serves to export or restore the best state, which may be
old. A snapshot is complete once every rank has written its file in done/.
"""

import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training import checkpoint, shards


class Snapshots:
    """One rank's access to the snapshots of a job. All ranks must call each method together.

    A snapshot can be loaded only with the same `identity`.

    Example:
        snapshots = Snapshots(engine, store, "mini", "grpo", recipe)
        snapshots.save(21, step=20, state={})
        snapshots.load(21)
    """

    def __init__(
        self, engine: Any, store: ObjectStore, run: str, job: str, identity: Mapping[str, Any]
    ) -> None:
        self._engine, self._store, self._identity = engine, store, identity
        self._run, self._job = run, job
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._running: Future[None] | None = None

    def save(self, name: int, step: int, state: Mapping[str, Any]) -> None:
        """Save the state after `step` steps under the number `name`.

        The method returns when the shards are on this machine's disk. A thread uploads them. If the
        previous upload failed, the method raises its error.
        """
        self.wait()
        directory = Path(tempfile.mkdtemp(prefix="awares-snapshot-"))
        shards.write(self._engine, directory)
        if self._engine.global_rank == 0:
            saved = checkpoint.describe(self._engine, step, self._identity, state)
            checkpoint.write_meta(saved, directory)
        self._running = self._thread.submit(self._upload, directory, name)

    def _upload(self, directory: Path, name: int) -> None:
        key = snapshot_key(self._run, self._job, name)
        try:
            self._store.upload_directory(directory, key)
        finally:
            shutil.rmtree(directory)
        ranks = str(self._engine.world_size).encode()
        self._store.put(f"{key}/done/{self._engine.global_rank:05d}", ranks)

    def wait(self) -> None:
        """Wait until this rank has uploaded its last snapshot. Raises the upload's error."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def load(self, name: int) -> checkpoint.Saved:
        """Load a complete snapshot into the engine, and return its description.

        Raises NotFound if the snapshot does not exist. Raises PolicyError if it belongs to another
        model, or if a setting in its identity differs from this job's.
        """
        self.wait()
        torch.distributed.barrier()  # Now the uploads of all ranks are finished.
        key = snapshot_key(self._run, self._job, name)
        with tempfile.TemporaryDirectory(prefix="awares-snapshot-") as directory:
            self._store.download_directory(key, directory)
            saved = checkpoint.load_directory(self._engine, Path(directory), key, self._identity)
        return saved


def snapshot_key(run: str, job: str, name: int) -> str:
    """Return the key of a snapshot's directory in the store."""
    return f"runs/{run}/snapshots/{job}/v{name:08d}"


def names(store: ObjectStore, run: str, job: str) -> set[int]:
    """Return the numbers of all snapshots of a job, complete or not."""
    folder = f"runs/{run}/snapshots/{job}/v"
    return {int(info.key.removeprefix(folder).split("/")[0]) for info in store.list(folder)}


def complete(store: ObjectStore, run: str, job: str, name: int) -> bool:
    """Return whether all ranks have written their parts of a snapshot."""
    done = [*store.list(f"{snapshot_key(run, job, name)}/done/")]
    try:
        return bool(done) and len(done) == int(store.get(done[0].key))
    except NotFound:
        return False  # The snapshot is being deleted.


def delete(store: ObjectStore, run: str, job: str, name: int) -> None:
    """Delete a snapshot. Delete done/ first, so that the rest never looks like a whole snapshot."""
    key = snapshot_key(run, job, name)
    store.delete_prefix(f"{key}/done/")
    store.delete_prefix(f"{key}/")
