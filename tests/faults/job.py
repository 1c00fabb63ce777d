"""Runs a grpo job for matrix.py as a separate process, and reads its progress from the store."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from awares_platform.config import PlatformConfig
from awares_platform.store import ObjectStore
from awares_platform.weights import Subscriber

COMMAND = [sys.executable, "-c", "from awares_platform.cli.main import main; main()", "grpo"]


class GrpoJob:
    """A running `awares grpo`, which can be started again.

    Example:
        job = GrpoJob(config, store, environment, directory)
        before = job.version()
        job.wait_for_version(before + 1, 120)
    """

    def __init__(
        self, config: PlatformConfig, store: ObjectStore, environment: dict[str, str], at: Path
    ) -> None:
        self._setup, self._environment = at / "setup.json", environment
        self._setup.write_text(config.model_dump_json())
        # `store` bypasses the proxy, so the progress is visible while the proxy injects faults.
        self._subscriber, self._store = Subscriber(store, config.run.name), store
        self._folder = f"runs/{config.run.name}/checkpoints/grpo/"
        # All lines that this and earlier processes of the job have printed.
        self.said: list[str] = []
        self.start()

    def start(self) -> None:
        """Start the process. After the loss of an earlier process, the job resumes."""
        self.process = subprocess.Popen(
            [*COMMAND, "--config", str(self._setup)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line.rstrip())

    def version(self) -> int:
        """Return the newest published version, or 0. Each step publishes one version."""
        return self._subscriber.head() or 0

    def checkpoints(self) -> set[int]:
        """Return the steps of the checkpoints that are in the store."""
        keys = (info.key for info in self._store.list(self._folder))
        return {int(found[1]) for key in keys if (found := re.search(r"/step-(\d+)/", key))}

    def wait_for_version(self, version: int, timeout_s: float) -> float:
        """Wait until `version` is published, and return the number of seconds waited.

        Raises TimeoutError if this takes too long, or if the job ends first.
        """
        started = time.monotonic()
        while self.version() < version:
            if self.process.poll() is not None and self.version() < version:
                raise TimeoutError(f"the job ended with status {self.process.returncode}")
            if time.monotonic() - started > timeout_s:
                raise TimeoutError(f"no step within {timeout_s:.0f} s")
            time.sleep(0.1)
        return time.monotonic() - started
