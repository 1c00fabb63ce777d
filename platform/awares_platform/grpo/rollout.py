"""Runs many episodes on one engine, which loads new weights meanwhile.

    rollout(prompt) x many -- run_episode x G --> Engine <-- load_version -- follow <-- weights (S3)
                                 |
                                 +-- cuts crops from the original image in this process

If an actor is killed, the run loses no state: the controller issues the actor's prompts again, and
starts a new actor, which loads the newest weights.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from awares.chat import ChatFormat
from awares.episode import Episode, StopReason, run_episode
from awares.episode_spec import EpisodeSpec, check_room
from awares.errors import DataError
from awares.gallery import Gallery
from awares.generate import Sampling
from awares.sample import Sample
from awares.seeds import derive
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images
from awares_platform.engine.canary import CanaryMismatch
from awares_platform.engine.canary_samples import build
from awares_platform.engine.engine import Engine, EngineError
from awares_platform.engine.exported import playable_start
from awares_platform.engine.follow import Loaded, Missed, follow
from awares_platform.grpo.actor import ActorLost, ActorReclaimed
from awares_platform.grpo.announcing import SELDOM
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.method.environment import (
    episode_budget,
    episode_spec,
    greedy,
    system_prompt,
    vision_limits,
)
from awares_platform.method.family import model_family
from awares_platform.method.play import Played, check_engine, play
from awares_platform.runtime.driver import first_line
from awares_platform.runtime.processor import resolved
from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.training.failure import cause
from awares_platform.training.policy import load_processor
from awares_platform.training.start import starting_policy
from awares_platform.weights import Subscriber


class RolloutActor:
    """The part of a rollout actor that runs in the actor's own process.

    Call `start` first. Then call `follow` once, and `rollout` any number of times concurrently.
    """

    def __init__(self, config: PlatformConfig, index: int) -> None:
        self._config, self._index = config, index
        self._store = ObjectStore.from_config(config.store)
        self._images = Images.of(self._store, config.data)
        self._subscriber = Subscriber(self._store, config.run.name, threads=config.engine.threads)
        self._mismatch: CanaryMismatch | None = None
        self._announced = asyncio.Event()
        # A task must hold this lock to load a version, or to keep the loaded version in the engine.
        self._loading = asyncio.Lock()
        self._engine: Engine | None = None

    async def ping(self) -> None:
        """Return when the engine has answered, or at once if it does not run yet.

        Raises EngineError if the engine is dead or hangs. A hung engine is killed.
        """
        if self._engine is not None:
            await self._engine.ping(self._config.run.hang_timeout_s)

    async def start(self) -> str:
        """Start the engine, and build the canary. Return the id of this process's node.

        Raises PolicyError if the starting policy is unusable, EngineError if the engine does not
        start, and DataError if no sample suits the canary.
        """
        config, method = self._config, self._config.method
        self._family = family = model_family(config.policy)
        start = await asyncio.to_thread(
            starting_policy,
            self._store,
            config.run.name,
            config.grpo.start,
            config.policy,
            family,
        )
        played = await asyncio.to_thread(
            playable_start, start, family, resolved(config.engine).dtype, method
        )
        processor = load_processor(start.weights, family, method.min_pixels, method.max_pixels)
        self._chat = ChatFormat(processor.tokenizer, system_prompt(method), family.chat)
        limits = vision_limits(method, family)
        seed = derive(config.run.seed, "grpo", index=self._index) % 2**31
        engine = await Engine.start(
            played.policy,
            config.engine,
            self._chat,
            seed,
            family=family,
            limits=limits,
            lora_rank=config.policy.lora_rank,
            adapter=played.adapter,
            base=played.base,
        )
        self._canary = await asyncio.to_thread(
            build,
            self._store,
            config.data,
            self._chat,
            limits,
            method.low_ratio,
            config.engine.max_model_len,
        )
        self._engine = engine
        return ray.get_runtime_context().get_node_id()

    async def follow(self) -> AsyncIterator[Loaded | Missed]:
        """Load each new version into the engine.

        Look for a new version after each `announce`, and otherwise at long intervals (see SELDOM).

        Yield Loaded or Missed for each load. Raises CanaryMismatch if the canary check fails, and
        EngineError if the engine must be restarted.
        """
        engine, seldom_s = self._running(), SELDOM * self._config.grpo.poll_s
        loads = follow(
            engine,
            self._subscriber,
            self._canary,
            seldom_s,
            self._announced,
            loading=self._loading,
        )
        try:
            async for load in loads:
                yield load
        except CanaryMismatch as error:
            self._mismatch = error
            raise

    async def announce(self) -> None:
        """Let `follow` read HEAD now."""
        self._announced.set()

    async def drain(self) -> None:
        """Interrupt the engine, so that every rollout returns with the tokens sampled so far."""
        await self._running().interrupt()

    async def rollout(self, prompt: Prompt, begun: Sequence[Episode] = ()) -> GroupRollout:
        """Run the G episodes of `prompt` concurrently. A failed episode has StopReason.ERROR.

        `begun` holds the episodes that a drained actor has handed back, if any. Raises EngineError
        if the engine is lost, and CanaryMismatch after a failed canary check.
        """
        started, engine = time.time(), self._running()
        settings = self._config.grpo
        sampling = Sampling(settings.temperature, top_p=1.0, max_tokens=settings.max_tokens)
        size, spec = settings.group_size, self._spec(sampling)
        try:
            image = await asyncio.to_thread(self._images, prompt.sample.image)
            check_room(spec, prompt.sample.question, image.size, self._chat)
        except DataError as error:
            return GroupRollout((_unplayed(prompt, error),), started, time.time(), str(error))
        gallery, earlier = Gallery(image), begun or (None,) * size
        plays = (
            self._play(prompt, gallery, spec, member, one) for member, one in enumerate(earlier)
        )
        episodes = tuple(await asyncio.gather(*plays))
        await self._check(episodes)
        return GroupRollout(episodes, started, time.time(), usage=engine.usage)

    async def _play(
        self,
        prompt: Prompt,
        gallery: Gallery,
        spec: EpisodeSpec,
        member: int,
        begun: Episode | None,
    ) -> Episode:
        """Run or continue the episode `member` of a group. If `begun` is finished, return it."""
        if begun is not None and begun.stop is not StopReason.UNFINISHED:
            return begun
        session = f"{prompt.number}.{prompt.attempt}.{member}"
        engine = self._running()
        return await run_episode(prompt.sample, gallery, engine, self._chat, spec, session, begun)

    async def _check(self, episodes: Sequence[Episode]) -> None:
        """Raise the error of the engine if an episode failed because of the engine."""
        if any(episode.stop is StopReason.ERROR for episode in episodes):
            if self._mismatch is not None:
                raise self._mismatch
            await self._running().check()

    async def validate(
        self, version: int, samples: Sequence[Sample]
    ) -> AsyncIterator[Loaded | tuple[Played, ...]]:
        """Answer `samples` greedily with the weights of exactly `version`.

        Yield Loaded if a load was necessary, and then the episodes. Raises WeightsError if the load
        fails, and EngineFailure if too many episodes fail. Raises EngineError and CanaryMismatch
        in the same cases as `follow`.
        """
        async with self._loading:
            if (load := await self._load(version)) is not None:
                yield load
            limit = asyncio.Semaphore(self._config.grpo.groups_in_flight * 2)
            spec = self._spec(greedy(self._config.grpo.max_tokens))
            played = await play(samples, self._images, self._running(), self._chat, spec, limit)
        await self._check([one.episode for one in played if one.episode is not None])
        check_engine(played)
        yield tuple(played)

    async def _load(self, version: int) -> Loaded | None:
        """Load `version`, even if the engine has a newer one. Return None if it has `version`."""
        engine, started = self._running(), time.perf_counter()
        if engine.version == version:
            return None
        await asyncio.to_thread(self._subscriber.head)
        try:
            report = await engine.load_version(self._subscriber, version, self._canary)
        except CanaryMismatch as error:
            self._mismatch = error
            raise
        return Loaded(report, time.perf_counter() - started)

    def _running(self) -> Engine:
        assert self._engine is not None, "`start` has not returned"
        return self._engine

    def _spec(self, sampling: Sampling) -> EpisodeSpec:
        method, context = self._config.method, self._config.engine.max_model_len
        budget = episode_budget(method, context)
        return episode_spec(method, self._family, sampling, budget=budget)


def _unplayed(prompt: Prompt, error: DataError) -> Episode:
    return Episode(
        sample_id=prompt.sample.sample_id,
        image=prompt.sample.image,
        image_size=(0, 0),
        turns=(),
        answer=None,
        stop=StopReason.ERROR,
        visual_tokens=0,
        rtr_token=0.0,
        rtr_pixel=0.0,
        error=str(error),
    )


class RemoteActor:
    """An `actor.Actor` that runs a RolloutActor in a separate Ray process.

    The methods raise ActorLost if the process, its engine, the store or a file fails. Any other
    AwaresError is raised without Ray's wrapper.
    """

    def __init__(self, config: PlatformConfig, index: int) -> None:
        settings = config.grpo
        options: dict[str, Any] = {
            "num_cpus": settings.rollout_cpus,
            "num_gpus": settings.rollout_gpus,
        }
        # Other methods, such as `ping` and `follow`, must run even while every slot has a group.
        options["max_concurrency"] = settings.groups_in_flight + 7
        if settings.rollout_selector:
            options["label_selector"] = settings.rollout_selector
        self._handle: Any = ray.remote(**options)(RolloutActor).remote(config, index)

    async def ping(self) -> None:
        await _answer(self._handle.ping.remote())

    async def start(self) -> str:
        return await _answer(self._handle.start.remote())

    async def follow(self) -> AsyncIterator[Loaded | Missed]:
        async for found in _stream(self._handle.follow.remote()):
            yield found

    async def validate(
        self, version: int, samples: Sequence[Sample]
    ) -> AsyncIterator[Loaded | tuple[Played, ...]]:
        async for found in _stream(self._handle.validate.remote(version, samples)):
            yield found

    async def rollout(self, prompt: Prompt, begun: Sequence[Episode] = ()) -> GroupRollout:
        return await _answer(self._handle.rollout.remote(prompt, begun))

    async def drain(self) -> None:
        await _answer(self._handle.drain.remote())

    def announce(self) -> None:
        self._handle.announce.remote()

    def kill(self) -> None:
        ray.kill(self._handle)


async def _stream(references: Any) -> AsyncIterator[Any]:
    """Yield the values of an actor's generator. Raises the errors of `_answer`."""
    try:
        async for reference in references:
            yield await _answer(reference)
    except RayError as error:
        raise _lost(error) from None


async def _answer(reference: Any) -> Any:
    """Return the value of an object reference.

    Raises ActorLost if the actor must be replaced, and ActorReclaimed if the cloud has taken its
    node back. Raises any other AwaresError of the actor without Ray's wrapper.
    """
    try:
        return await reference
    except RayTaskError as error:
        inner = cause(error)
        met = error.cause if inner is error else inner
        if isinstance(met, (EngineError, StoreError, OSError, RayError)):
            raise ActorLost(first_line(met)) from None
        raise inner from None
    except RayError as error:
        raise _lost(error) from None


def _lost(error: RayError) -> ActorLost:
    reclaimed = isinstance(error, RayActorError) and error.preempted
    return (ActorReclaimed if reclaimed else ActorLost)(first_line(error))
