"""Runs the reward in Ray processes of its own, or in a thread of the controller's process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from awares.reward import RewardValue
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.grpo.group import Group, GroupRollout, Prompt
from awares_platform.grpo.rewarding import Asked, RewardPool, WorkerLost, WorkerReclaimed
from awares_platform.grpo.scoring import Scoring, values
from awares_platform.method.reward import build_reward
from awares_platform.runtime.driver import first_line
from awares_platform.runtime.watch import PartLost, guarded, watch
from awares_platform.training.failure import cause

_PINGS = "pings"
"""The name of the concurrency group whose thread answers pings."""


class RewardActor:
    """The part of a reward worker that runs in the worker's own process.

    One thread computes rewards, and another one answers `ping`.
    """

    def ping(self) -> None:
        """Return at once, to show that the process is alive."""

    def start(self, method: MethodConfig) -> None:
        """Build the reward. Raises ConfigError if the reward cannot be built."""
        self._reward = _build(method)

    def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        """Return the rewards of each group. The reward is called once for each group."""
        return [values(self._reward, sample, episodes) for sample, episodes in asked]


class RemoteWorker:
    """A `rewarding.RewardWorker` that runs a RewardActor in a separate Ray process.

    A busy process counts as lost if it answers no ping for `hang_timeout_s` seconds.
    """

    def __init__(self, settings: GrpoConfig, method: MethodConfig, hang_timeout_s: float) -> None:
        self._method, self._hang_timeout_s = method, hang_timeout_s
        options = {"num_cpus": settings.reward_cpus, "concurrency_groups": {_PINGS: 1}}
        self._handle: Any = ray.remote(**options)(RewardActor).remote()

    async def start(self) -> None:
        await _answer(self._handle.start.remote(self._method))

    async def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        ping = self._handle.ping.options(concurrency_group=_PINGS)
        pings = watch("the reward worker", lambda: _answer(ping.remote()), self._hang_timeout_s)
        try:
            return await guarded(_answer(self._handle.rewards.remote(asked)), pings)
        except PartLost as error:
            raise WorkerLost(str(error)) from None

    def kill(self) -> None:
        ray.kill(self._handle)


class LocalRewards:
    """Scores groups in a thread of this process, and has the interface of a RewardPool."""

    ready = True

    def __init__(self, settings: GrpoConfig, method: MethodConfig) -> None:
        self._scoring = Scoring(_build(method), settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def __call__(self, prompt: Prompt, rollout: GroupRollout) -> Group:
        return await asyncio.to_thread(self._scoring, prompt, rollout)


def rewards(
    settings: GrpoConfig,
    method: MethodConfig,
    hang_timeout_s: float,
    stop: Callable[[Exception], Awaitable[None]],
) -> LocalRewards | RewardPool:
    """Return a RewardPool, or LocalRewards if grpo.reward_workers is 0.

    LocalRewards builds the reward in this call. Raises ConfigError if it cannot be built.
    """
    if settings.reward_workers == 0:
        return LocalRewards(settings, method)
    return RewardPool(settings, lambda _: RemoteWorker(settings, method, hang_timeout_s), stop)


def _build(method: MethodConfig) -> Any:
    """Build the reward with one torch thread, so that its values are the same in any process."""
    import torch

    torch.set_num_threads(1)
    return build_reward(method)


async def _answer(reference: Any) -> Any:
    """Return the value of an object reference.

    Raises WorkerLost if the process is lost, and WorkerReclaimed if the cloud has taken its node
    back. Raises an AwaresError of the reward without Ray's
    wrapper. Any other error keeps the wrapper, which has the remote traceback.
    """
    try:
        return await reference
    except RayTaskError as error:
        raise cause(error) from None
    except RayError as error:
        reclaimed = isinstance(error, RayActorError) and error.preempted
        raise (WorkerReclaimed if reclaimed else WorkerLost)(first_line(error)) from None
