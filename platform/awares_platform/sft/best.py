"""Keeps the training state of the best step, which has the lowest loss on held-out demonstrations.

    validated step --lower loss--> snapshot --no checkpoint records it--> deleted

A job that resumes from a checkpoint needs the snapshot that this checkpoint records.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint, snapshot
from awares_platform.training.checkpoint import Saved
from awares_platform.training.snapshot import Snapshots

LOSS = "validation/loss"


@dataclass(frozen=True, slots=True)
class Best:
    """The best step so far, and its metrics.

    Example:
        Best(200, {"validation/loss": 0.02})
    """

    step: int
    figures: dict[str, float]


class BestStep:
    """One rank's knowledge of the best step. All ranks must call each method together.

    `found` is the best step so far. `job` is the result of `sft_job`. It names the directories of
    the job's checkpoints and snapshots.

    Example:
        best = BestStep(store, "mini", "sft-9f2c", snapshots, rank=0)
        best.offer(200, {"validation/loss": 0.02})
    """

    def __init__(
        self, store: ObjectStore, run: str, job: str, snapshots: Snapshots, rank: int
    ) -> None:
        self._named = store, run, job
        self._snapshots, self._rank = snapshots, rank
        self.found: Best | None = None
        # The step that this process's newest checkpoint records. Its upload may not have ended yet.
        self._recorded: int | None = None

    def resume(self, saved: Saved | None, last: int) -> None:
        """Take over the best step that the checkpoint `saved` records, and delete other snapshots.

        The best step is ignored if its snapshot is incomplete. The step `last` needs no snapshot,
        because the checkpoint holds its state.
        """
        found = saved and saved.state.get("best")
        if saved and found:
            step = found["step"]
            if step == saved.step == last or snapshot.complete(*self._named, step):
                self.found, self._recorded = Best(step, found["figures"]), step
        self._delete_except({self._recorded})

    def offer(self, step: int, figures: dict[str, float]) -> None:
        """Save a snapshot of the present state if the loss after `step` steps is the lowest."""
        if self.found and self.found.figures[LOSS] <= figures[LOSS]:
            return
        self.found = Best(step, figures)
        self._snapshots.save(step, step, {})
        if self._rank == 0:
            self._delete_except({step, self._recorded, *self._recorded_in_store()})

    def _recorded_in_store(self) -> Iterator[int]:
        """Yield the best step of each checkpoint in the store. The job may resume from any one."""
        for _, saved in checkpoint.stored(*self._named):
            if best := saved.state.get("best"):
                yield best["step"]

    def _delete_except(self, kept: Collection[int | None]) -> None:
        """Delete all snapshots of the job except for those of the steps `kept`."""
        if self._rank == 0:
            for step in snapshot.names(*self._named):
                if step not in kept:
                    snapshot.delete(*self._named, step)

    def forget(self) -> None:
        """Delete all snapshots, because the policy is exported."""
        self._delete_except(())

    def state(self) -> dict[str, Any]:
        """Wait until the last snapshot is uploaded. Return the best step, for a checkpoint."""
        self._snapshots.wait()
        self._recorded = self.found and self.found.step
        return {"best": self.found and asdict(self.found)}
