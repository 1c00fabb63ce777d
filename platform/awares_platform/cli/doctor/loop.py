"""Checks the loop of the grpo job: all-reduce, trainer, engine, and updates of the weights.

The learner sends an adapter in one update, and all weights in the other update.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from awares_platform.cli.doctor import collective
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.visit import Visit
from awares_platform.store import ObjectStore

TRAINER, ENGINE = "trainer", "engine"
FORMS = {True: "update of an adapter", False: "update of whole weights"}
CHECKS = (collective.ALL_REDUCE, TRAINER, ENGINE, *FORMS.values())
_ENOUGH_S = 10.0
"""The second update starts only if at least this number of seconds is left."""
_LOAD = (
    "Correct the fault in the finding, compare the memory with `awares plan`, or raise --seconds "
    "if the policy was still being downloaded."
)
_UPDATE = "Do not start a run before this passes, because its engines would play other weights."
_OTHER = (
    "This setup does not train such updates, so a run can start. Run the doctor again after a "
    "change of policy.lora_rank."
)


def check_loop(
    visit: Visit,
    store: ObjectStore | None,
    ranks: list[Any],
    player: Any,
    *,
    own: bool,
    gpu: bool,
) -> None:
    """Check the all-reduce, the trainer, the engine and both kinds of updates.

    `store` is None if the store cannot be used. `own` is true if the setup trains an adapter. `gpu`
    is true if the learner uses GPUs.
    """
    joined = visit.run(collective.ALL_REDUCE, lambda: _all_reduce(ranks, gpu), collective.REMEDY)
    with ThreadPoolExecutor(1) as pool:
        engine = pool.submit(visit.run, ENGINE, lambda: _start(player, own), _LOAD, visit.left_s)
        trains = joined and visit.run(TRAINER, lambda: _load(ranks, own), _LOAD, visit.left_s)
        ready = engine.result() and trains
    if not joined:
        visit.skip(TRAINER, "it needs the all-reduce")
    for adapter in (own, not own):
        check = FORMS[adapter]
        if not (ready and store):
            visit.skip(check, "it needs the store, the trainer and the engine")
        elif adapter != own and visit.left_s < _ENOUGH_S:
            visit.skip(check, "no time was left, and the setup does not need it")
        else:
            work = _update(check, store, ranks, player, adapter, adapter != own)
            remedy = _UPDATE if adapter == own else _OTHER
            visit.run(check, work, remedy, visit.left_s, needed=adapter == own)


def _all_reduce(ranks: list[Any], gpu: bool) -> list[Finding]:
    backend = "nccl" if gpu else "gloo"
    address = ray.get(ranks[0].address.remote())
    return collective.judged(call_all(ranks, "all_reduce", address), backend)


def _load(ranks: list[Any], adapter: bool) -> list[Finding]:
    trained = call_all(ranks, "load", adapter)[0]
    found = f"DeepSpeed has loaded the base policy, {trained:,} parameters are trained"
    return [Finding(TRAINER, "pass", found, metrics={"trained_parameters": trained})]


def _start(player: Any, adapter: bool) -> list[Finding]:
    ray.get(player.start.remote(adapter))
    return [Finding(ENGINE, "pass", "vLLM has loaded the base policy")]


def _update(
    check: str, store: ObjectStore, ranks: list[Any], player: Any, adapter: bool, other: bool
) -> Callable[[], list[Finding]]:
    """Return the function that checks one update: of an adapter, or else of all weights.

    `other` is true if the setup does not train what this update sends. The function then loads the
    policy again.
    """

    def work() -> list[Finding]:
        if other:
            started = player.start.remote(adapter)
            call_all(ranks, "load", adapter)
            ray.get(started)
        run = "adapter" if adapter else "whole"
        sent = call_all(ranks, "update", store, run)[0]
        loaded = ray.get(player.load.remote(store, run, sent.version))
        return [_judged(check, sent, loaded)]

    return work


def _judged(check: str, sent: Any, loaded: Any) -> Finding:
    """Return the finding on an update that the engine has loaded without error."""
    metrics = {
        "bytes": sent.size,
        "publish_s": sent.seconds,
        "apply_s": loaded.apply_s,
        "pause_s": loaded.pause_s,
        "canary_change_nats": sent.moved,
        "canary_dlogp": loaded.canary_dlogp,
        "canary_slope": loaded.canary_slope,
    }
    if loaded.canary_slope is None:
        found = f"the update of {sent.moved:.3g} nats was too small for the relative canary"
        remedy = "Report this setup as an error of awares doctor, which trains until it is larger."
        return Finding(check, "warn", found, remedy, metrics=metrics)
    found = (
        f"the engine plays {loaded.canary_slope:.1%} of the change ({sent.size / 1e6:.1f} MB, "
        f"published in {sent.seconds:.1f} s, pause {loaded.pause_s:.2f} s)"
    )
    return Finding(check, "pass", found, metrics=metrics)


def call_all(actors: list[Any], method: str, *arguments: Any) -> list[Any]:
    """Call a method of all actors at once, and return their results."""
    return ray.get([getattr(actor, method).remote(*arguments) for actor in actors])
