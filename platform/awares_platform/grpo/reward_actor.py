"""Runs the reward in Ray processes of its own, or in a thread of the controller's process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from awares.reward import RewardValue
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.grpo.group import Group, GroupRollout, Prompt
from awares_platform.grpo.rewarding import Asked, RewardPool, WorkerLost
from awares_platform.grpo.scoring import Scoring, values
from awares_platform.method.reward import build_reward
from awares_platform.training.failure import cause


class RewardActor:
    """The part of a reward worker that runs in the worker's own process."""

    def start(self, method: MethodConfig) -> None:
        """Build the reward. Raises ConfigError if the reward cannot be built."""
        self._reward = _build(method)

    def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        """Return the rewards of each group. The reward is called once for each group."""
        return [values(self._reward, sample, episodes) for sample, episodes in asked]


class RemoteWorker:
    """A `rewarding.RewardWorker` that runs a RewardActor in a separate Ray process."""

    def __init__(self, settings: GrpoConfig, method: MethodConfig) -> None:
        self._method = method
        self._handle: Any = ray.remote(num_cpus=settings.reward_cpus)(RewardActor).remote()

    async def start(self) -> None:
        await _answer(self._handle.start.remote(self._method))

    async def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        return await _answer(self._handle.rewards.remote(asked))

    def kill(self) -> None:
        ray.kill(self._handle)


class LocalRewards:
    """Scores groups in a thread of this process, and has the interface of a RewardPool."""

    def __init__(self, settings: GrpoConfig, method: MethodConfig) -> None:
        self._scoring = Scoring(_build(method), settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def __call__(self, prompt: Prompt, rollout: GroupRollout) -> Group:
        return await asyncio.to_thread(self._scoring, prompt, rollout)


def rewards(
    settings: GrpoConfig, method: MethodConfig, stop: Callable[[Exception], Awaitable[None]]
) -> LocalRewards | RewardPool:
    """Return the configured way to score groups.

    Without reward workers, the reward is built here. Raises ConfigError if it cannot be built.
    """
    if settings.reward_workers == 0:
        return LocalRewards(settings, method)
    return RewardPool(settings, lambda _: RemoteWorker(settings, method), stop)


def _build(method: MethodConfig) -> Any:
    """Build the reward with one torch thread, so that its values are the same in any process."""
    import torch

    torch.set_num_threads(1)
    return build_reward(method)


async def _answer(reference: Any) -> Any:
    """Return the value of an object reference.

    Raises WorkerLost if the process is lost. Raises an AwaresError of the reward without Ray's
    wrapper. Any other error keeps the wrapper, which has the remote traceback.
    """
    try:
        return await reference
    except RayTaskError as error:
        raise cause(error) from None
    except RayError as error:
        raise WorkerLost((str(error).splitlines() or [type(error).__name__])[0]) from None
