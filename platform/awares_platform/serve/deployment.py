"""Defines the class of the endpoint's replicas, and their deployment options in Ray Serve."""

import asyncio
import os
from contextlib import ExitStack
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.applications import Starlette

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.config.base import nearest
from awares_platform.config.serve import ServeConfig
from awares_platform.method.environment import environment
from awares_platform.runtime.watch import ENGINE_MARGIN, watch
from awares_platform.runtime.watchdog import watchdog
from awares_platform.serve.allowance import Allowances, Counts
from awares_platform.serve.croploop import CropLoop
from awares_platform.serve.gate import Gate
from awares_platform.serve.keys import Keyring
from awares_platform.serve.proxy import INGRESS
from awares_platform.serve.routes import Routes, create_app

CONSTRUCTOR_TRIES = 2
ALLOWANCE_CALLS = 1000
"""The number of calls that the Allowances deployment answers at once."""
HEALTH_PERIOD_S = 2.0
"""Seconds between two health checks of a replica."""
_HEALTH_CHECKS = 3
"""Ray Serve replaces a replica after this number of health checks in a row without an answer."""


@serve.ingress()
class Replica:
    """One engine with the run's policy, and the HTTP application in front of it."""

    async def __init__(self, config: PlatformConfig, allowances: Any = None) -> None:
        """Start the engine. `allowances` is the handle of the Allowances deployment, or None."""
        from awares.chat import ChatFormat
        from awares.images import DecodeLimits
        from awares_platform.engine.canary_samples import build
        from awares_platform.engine.engine import Engine
        from awares_platform.engine.exported import playable, playable_start
        from awares_platform.engine.following import Following
        from awares_platform.method.environment import (
            episode_budget,
            episode_spec,
            greedy,
            system_prompt,
            vision_limits,
        )
        from awares_platform.method.family import model_family
        from awares_platform.runtime.processor import resolved
        from awares_platform.store import ObjectStore
        from awares_platform.training import inputs
        from awares_platform.training.curated_set import recorded_labels
        from awares_platform.training.policy import load_processor
        from awares_platform.training.source import resolve
        from awares_platform.training.start import starting_policy

        settings = config.serve
        self._settings = settings
        counts = Counts(allowances) if allowances is not None else None
        self._gate = Gate(keyring(settings), counts)
        store = ObjectStore.from_config(config.store)
        run, base, method = config.run.name, config.policy.base, config.method
        family = model_family(config.policy)
        policy = await asyncio.to_thread(resolve, store, run, settings.policy, base, family)
        inputs.check(policy, method)
        processor = load_processor(policy, family, method.min_pixels, method.max_pixels)
        dtype = resolved(config.engine).dtype
        if settings.follow:
            start = await asyncio.to_thread(
                starting_policy, store, run, settings.policy, config.policy, family
            )
            played = await asyncio.to_thread(playable_start, start, family, dtype, method)
        else:
            played = await asyncio.to_thread(
                playable, store, run, settings.policy, base, family, dtype, method
            )
        chat = ChatFormat(processor.tokenizer, system_prompt(method), family.chat)
        self._engine = await Engine.start(
            played.policy,
            config.engine,
            chat,
            config.run.seed,
            family=family,
            limits=vision_limits(config.method, family),
            lora_rank=config.policy.lora_rank if settings.follow else 0,
            adapter=played.adapter,
            base=played.base,
        )
        hang_s = config.run.hang_timeout_s
        # If SIGSTOP stops this process, Ray Serve cannot end it, and the process keeps its GPU. The
        # watchdog then kills the process.
        self._watchdog = ExitStack()
        self._watchdog.enter_context(watchdog(hang_s))
        pings = watch("the engine", lambda: self._engine.ping(hang_s), hang_s * ENGINE_MARGIN)
        self._watching = asyncio.create_task(pings)
        limits = DecodeLimits(max_pixels=settings.max_image_pixels)
        self._following = None
        if settings.follow:
            labels = await asyncio.to_thread(recorded_labels, store, run, config.data)
            canary = await asyncio.to_thread(
                build,
                store,
                labels,
                chat,
                vision_limits(method, family),
                method.low_ratio,
                config.engine.max_model_len,
            )
            self._following = await Following.begin(
                self._engine, store, run, canary, method, config.engine.threads
            )
        budget = episode_budget(config.method, config.engine.max_model_len, fit=True)
        self._loop = CropLoop(
            self._engine,
            chat,
            episode_spec(config.method, family, greedy(settings.max_tokens), budget=budget),
            limits,
            config.engine.max_images,
            settings.max_pixels_in_flight,
        )

    def __serve_build_asgi_app__(self) -> Starlette:
        """Build the ASGI application that Serve runs in this replica."""
        return create_app(Routes(self._loop, self._settings, self._gate, self._engine.check))

    async def check_health(self) -> None:
        """Raise an error if the engine or the weight updates failed, or if the engine hangs.

        Ray Serve then replaces the replica. The check must be fast, so it does not ping the engine.
        """
        await self._engine.check()
        if self._watching.done():
            self._watching.result()
        if self._following is not None:
            self._following.check()

    async def __del__(self) -> None:
        if following := getattr(self, "_following", None):
            await following.stop()
        if watching := getattr(self, "_watching", None):
            watching.cancel()
        if hasattr(self, "_engine"):
            await self._engine.stop()
        if dog := getattr(self, "_watchdog", None):
            dog.close()


def build_application(config: PlatformConfig) -> Application:
    """Build the Serve application for `config`, but do not start it.

    Raises ConfigError for a wrong setting.
    """
    environment(config.method)
    settings = config.serve
    if settings.follow and settings.policy != config.grpo.start:
        raise ConfigError(
            "serve.follow loads GRPO's updates of the policy that GRPO starts from: "
            f"set serve.policy={config.grpo.start} (grpo.start), not {settings.policy}"
        )
    deployment = serve.deployment(
        Replica,
        name=INGRESS,
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        backpressure_config=BackpressureConfig(
            status_code=503, retry_after_s=settings.retry_after_s
        ),
        graceful_shutdown_timeout_s=settings.shutdown_timeout_s,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=config.run.hang_timeout_s / _HEALTH_CHECKS,
        max_constructor_retry_count=CONSTRUCTOR_TRIES,
        ray_actor_options={"num_cpus": settings.replica_cpus, "num_gpus": settings.replica_gpus},
        autoscaling_config=autoscaling(settings.autoscaling),
    )
    if settings.keys_file is None:
        return deployment.bind(config)
    allowances = serve.deployment(
        Allowances,
        name="allowances",
        max_ongoing_requests=ALLOWANCE_CALLS,
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(config, allowances.bind())


def autoscaling(options: dict[str, Any]) -> AutoscalingConfig | None:
    """Return Ray's autoscaling settings. Without options, return None, which means one replica.

    Raises ConfigError for a wrong value, and for an unknown key, which Ray would silently ignore.
    """
    for key in options:
        if key not in AutoscalingConfig.model_fields:
            raise ConfigError(
                f"serve.autoscaling.{key}: no such key; "
                f"the nearest is {nearest(key, AutoscalingConfig.model_fields)}"
            )
    try:
        return AutoscalingConfig.model_validate(options) if options else None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("serve.autoscaling", *map(str, first["loc"])))
        raise ConfigError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from None


def keyring(settings: ServeConfig) -> Keyring:
    """Return the keys of the endpoint.

    Raises ConfigError if serve.token_env or serve.keys_file is unusable.
    """
    return Keyring(read_token(settings), settings.keys_file)


def read_token(settings: ServeConfig) -> str | None:
    """Return the bearer token, or None if the endpoint requires no token.

    Raises ConfigError if serve.token_env names an environment variable that is unset or empty.
    """
    if settings.token_env is None:
        return None
    token = os.environ.get(settings.token_env, "").strip()
    if not token:
        raise ConfigError(
            f"serve.token_env names the environment variable {settings.token_env}, "
            "which is unset or empty: set it, or leave the key out"
        )
    return token
