"""Tests when a learner saves a checkpoint, and which state this checkpoint stores."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import ray.train

from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.group import Position
from awares_platform.grpo.learner import Learner
from awares_platform.grpo.lineage import Spans
from awares_platform.grpo.order import Finish, Leave, Restore
from awares_platform.grpo.shard import StepShard
from awares_platform.training import checkpoint
from awares_platform.training.checkpoint import Saved

Save = tuple[int, int, Spans, str]
"""The step, the version and the lineage of a checkpoint, and the suffix of its name."""


class StoredSnapshots:
    """Stands for Snapshots. Version n has the lineage ((1, n),)."""

    def __init__(self) -> None:
        self.waits = 0

    def wait(self) -> None:
        self.waits += 1

    def load(self, version: int) -> Saved:
        state = {"watermark": 0, "beyond": (), "lineage": ((1, version),)}
        return Saved(version - 1, "", {}, state)


class Idle:
    """Stands for a Publisher and for a Warmer that have nothing to do."""

    def wait(self) -> None:
        pass

    def end(self) -> None:
        pass


class ScriptedLearner(Learner):
    """A learner without an engine. Each item of `script` is an order, or None for a batch."""

    def __init__(self, script: list[Finish | Leave | Restore | None], every: int) -> None:
        self._settings = GrpoConfig(steps=6, checkpoint_every=every)
        self._script = iter(script)
        self._engine: Any = None
        self._publisher: Any = Idle()
        self._warmer: Any = Idle()
        self._snapshots: Any = StoredSnapshots()
        self._recipe, self._spans, self._first, self._newest = {}, (), 0, 0
        self.ended: tuple[int, int] | None = None

    def _publish(self, step: int) -> int:
        self._newest += 1
        return self._newest

    def _tell(self, method: str, *arguments: Any) -> None:
        pass

    def _next(self, step: int, version: int) -> Any:
        return next(self._script) or StepShard(step, (), Position(step + 1))

    def _step(self, shard: StepShard, version: int, asked: float) -> int:
        return self._publish(shard.step + 1)

    def _end(self, step: int, position: Position, version: int) -> None:
        self.ended = step, version


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Save]]:
    """Yield a list to which each save of a checkpoint adds an entry. No preemption is announced."""
    found: list[Save] = []

    def save(
        engine: Any,
        step: int,
        identity: Mapping[str, Any],
        state: Mapping[str, Any],
        suffix: str = "",
    ) -> None:
        assert state["watermark"] == step
        found.append((step, state["version"], state["lineage"], suffix))

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(checkpoint, "restore", lambda engine, identity: None)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    yield found


@pytest.mark.parametrize("every", [2, 3])
def test_a_restored_state_is_saved_under_a_name_of_its_own(saves: list[Save], every: int) -> None:
    """Check a step that has a checkpoint, and a step without one.

    The learner has published version 3 after step 2. The restored version 2 becomes version 4.
    """
    learner = ScriptedLearner([None, None, Restore(2), Leave()], every)
    learner.run()
    before = [(2, 3, ((1, 3),), "")] if every == 2 else []
    assert saves == [*before, (2, 4, ((1, 2), (4, 4)), "-v00000004")]
    assert learner.ended is None


def test_a_learner_that_ends_early_saves_the_steps_since_its_last_checkpoint(
    saves: list[Save],
) -> None:
    for order in (Leave(), Finish()):
        learner = ScriptedLearner([None, None, None, order], every=2)
        learner.run()
        assert saves == [(2, 3, ((1, 3),), ""), (3, 4, ((1, 4),), "")]
        assert learner.ended == ((3, 4) if order == Finish() else None)
        saves.clear()


def test_a_learner_saves_no_state_twice(saves: list[Save]) -> None:
    for order in (Leave(), Finish()):
        ScriptedLearner([None, None, order], every=2).run()
        assert saves == [(2, 3, ((1, 3),), "")]
        saves.clear()
    ScriptedLearner([Leave()], every=2).run()
    assert saves == []


def test_a_checkpoint_waits_until_the_metrics_of_its_steps_are_written(
    saves: list[Save], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = ScriptedLearner([None, None, None, Leave()], every=2)
    # The number of checkpoints that precede each wait.
    saved: list[int] = []

    def tell(method: str, *_: Any) -> None:
        if method == "recorded":
            saved.append(len(saves))

    monkeypatch.setattr(learner, "_tell", tell)
    learner.run()
    assert len(saves) == 2 and saved == [0, 1]
