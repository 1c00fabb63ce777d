"""Defines recipes: everything that the result of a job depends on.

    "run.seed", ...                      settings that change the result
    "base policy", "starting policy"     the digest of the policy's files
    "starting adapter"                   the digest of the adapter that GRPO trains further
    "data"                               the name and a digest of the samples
    "code of method.reward", ...         the digest of a user's file

Before a job resumes, it compares its recipe with the recipe of the earlier result.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig, Section
from awares_platform.config.base import without_added
from awares_platform.config.curate import CurateConfig
from awares_platform.config.data import CURATED, DataConfig
from awares_platform.config.engine import EngineConfig
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.config.guards import GuardsConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.validation import ValidationConfig
from awares_platform.data.manifest import samples_digest
from awares_platform.method.environment import inputs
from awares_platform.method.prompt_file import grounding_prompt, judge_prompt
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

Recipe = dict[str, Any]

ENGINE_PARTS = {"dtype", "max_model_len"}
"""The settings of [engine] that change answers, or decide which questions fit the context."""
_POLICY_OPERATION = {"base", "attn", "gradient_checkpointing"}
"""The settings of [policy] that recipes leave out.

Instead of policy.base, recipes have a digest of the base policy's files. A copy of these files in
another place thus gives the same recipe.
"""
_ENDPOINT_OPERATION = {
    "url",
    "api_key_variable",
    "timeout_s",
    "retry_budget_s",
    "in_flight",
    "requests_per_minute",
    "tokens_per_minute",
    "input_price",
    "output_price",
}
_CURATE_OPERATION = {
    "in_flight": True,
    "engines": True,
    "engine_cpus": True,
    "engine_gpus": True,
    "engine_restarts": True,
    "budget": True,
    # Instead of the next two settings, recipes contain digests of the prompts' texts.
    "judge_prompt": True,
    "grounding_prompt": True,
    "second_judge": True,
    "second_judge_settings": True,
    "second_judge_endpoint": True,
    "judge_endpoint": _ENDPOINT_OPERATION,
    "grounding_endpoint": _ENDPOINT_OPERATION,
}
_SFT_OPERATION = {
    "micro_batch",
    "micro_tokens",
    "workers",
    "zero_stage",
    "use_gpu",
    "selector",
    "threads",
    "checkpoint_every",
    "keep_checkpoints",
    "max_failures",
    "max_skipped_steps",
}
_GRPO_OPERATION = {
    "rollout_actors",
    "rollout_actors_min",
    "groups_in_flight",
    "rollout_cpus",
    "rollout_gpus",
    "rollout_selector",
    "actor_restarts",
    "poll_s",
    "learner_workers",
    "learner_cpus",
    "learner_gpus",
    "learner_selector",
    "learner_threads",
    "learner_restarts",
    "zero_stage",
    "micro_batch",
    "micro_tokens",
    "max_skipped_steps",
    "anchor_every",
    "keep_versions",
    "checkpoint_every",
    "keep_checkpoints",
    "batch_timeout_s",
    "guards",  # `_restored_by` adds the guards that change a result.
    "reward_workers",
    "reward_cpus",
    "reward_timeout_s",
}
_EVALUATE_OPERATION = {
    "benchmark_root",
    "in_flight",
    "engine_cpus",
    "engine_gpus",
    "engine_restarts",
}
_LABELS_ONLY = {"base_prompt", "mapping", "coverage_tau"}
"""The settings of [method] that decide only labels. A GRPO recipe leaves them out, because its data
digest covers the labels."""
_REWARD_ONLY = {
    "reward",
    "reward_settings",
    "answer_weight",
    "alpha_miss",
    "alpha_use",
    "lambda_area",
    "malformed_cost",
    "similarity_model",
}
"""The settings of [method] on which labels do not depend.

The system prompt is not in this set: curation leaves out a question if an episode with the system
prompt can exceed the context.
"""
_ADDED = {"curate.judge_form": "compare"}
"""Maps each setting that older recipes lack to the value that reproduces the older results.

Recipes leave the setting out while it has this value. Add a new setting here if its default changes
no result. Otherwise each finished set and each run of an older version would be refused.
"""
_PARTS = (
    "policy.family",
    "method.environment",
    "method.reward",
    "curate.judge",
    "curate.grounding",
)
"""The settings that may name a class or function of the user, as module:attribute."""
_NOTES = {
    "grpo.steps": "The learning rate falls to zero over grpo.steps, so a run cannot be extended.",
}
_SHOWN = 60
"""The number of characters after which a value in a message is cut."""


def label_recipe(
    method: MethodConfig, engine: EngineConfig, curate: CurateConfig, policy: str
) -> Recipe:
    """Return the recipe of curated labels. `policy` is the digest of the base policy."""
    return _with_code(
        {
            **_settings("method", method, _REWARD_ONLY),
            "method.system_prompt": inputs(method)["system_prompt"],
            **_settings("curate", curate, _CURATE_OPERATION),
            **_prompts(curate),
            **_engine(engine),
            "base policy": policy,
        }
    )


def set_recipe(data: DataConfig, labels: Recipe, source: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a curated set, whose digest is a part of the set's name.

    `labels` is the result of `label_recipe`. `source` is the manifest of the split whose samples
    get the labels.
    """
    content = {
        "data": _data(data.name, samples_digest(source)),
        "data.train_samples": min(data.train_samples, source["rows"]),
        "data.shard_rows": data.shard_rows,
    }
    return json.loads(json.dumps({**labels, **content}))


def answer_recipe(labels: Recipe) -> Recipe:
    """Return the part of the labels' recipe that decides what the base policy answers."""
    judging = ("curate.", "prompt of ", "code of curate.", "method.mapping", "method.coverage_tau")
    return {
        key: value
        for key, value in labels.items()
        if key == "curate.max_tokens" or not key.startswith(judging)
    }


def sft_recipe(config: PlatformConfig, base: str, samples: str) -> Recipe:
    """Return the recipe of the policy "sft".

    `base` is the digest of the base policy. `samples` is the digest of the curated samples.
    """
    return _with_code(
        {
            **_settings("policy", config.policy, _POLICY_OPERATION),
            **_named("method", inputs(config.method)),
            **_settings("sft", config.sft, _SFT_OPERATION),
            "run.seed": config.run.seed,
            "base policy": base,
            "data": _curated(config.data, samples),
            "data.held_out": config.data.held_out,
        }
    )


def grpo_recipe(
    config: PlatformConfig, start: str, samples: str, adapter: str | None = None
) -> Recipe:
    """Return the recipe of the policy "awares".

    `start`, `samples` and `adapter` are digests: of the starting policy, of the curated samples,
    and of the adapter that GRPO trains further (or None).
    """
    return _with_code(
        {
            **_settings("policy", config.policy, _POLICY_OPERATION),
            **_settings("method", config.method, _LABELS_ONLY),
            **_named("method", inputs(config.method)),
            **_settings("grpo", config.grpo, _GRPO_OPERATION),
            **_restored_by(config.grpo.guards),
            **_engine(config.engine),
            "run.seed": config.run.seed,
            "starting policy": start,
            **({} if adapter is None else {"starting adapter": adapter}),
            "data": _curated(config.data, samples),
            "data.held_out": config.data.held_out,
            **_judged_by(config.grpo.validation, config.evaluate),
        }
    )


def _restored_by(guards: GuardsConfig) -> Recipe:
    """Return the settings of the guards with the action "restore-best".

    Other guards only warn or stop, and `max_restores` only stops, so they change no result.
    """
    bounds = {f"{key}{end}" for key in guards.restoring for end in ("", "_below", "_above")}
    kept = {"window", *bounds} if bounds else set()
    return _named("grpo.guards", guards.model_dump(include=kept))


def _judged_by(validation: ValidationConfig, evaluate: EvaluateConfig) -> Recipe:
    """Return the scorer's settings if the scorer decides which version is the best, else {}."""
    if validation.metric != "accuracy":
        return {}
    return _named("evaluate", evaluate.model_dump(include={"scorer", "scorer_version"}))


def evaluate_recipe(
    config: PlatformConfig,
    labels: Recipe,
    policies: Mapping[str, str | None],
    samples: str,
) -> Recipe:
    """Return the recipe of an evaluation.

    `labels` is the result of `label_recipe`. `policies` maps each policy to its digest. `samples`
    is the digest of the samples of the test split.
    """
    return _with_code(
        {
            **labels,
            **_settings("method", config.method, set()),
            **_named("method", inputs(config.method)),
            **_settings("evaluate", config.evaluate, _EVALUATE_OPERATION),
            **{f"policy {name}": content for name, content in policies.items()},
            "run.seed": config.run.seed,
            "data": _data(config.data.name, samples),
        }
    )


def digest(recipe: Recipe) -> str:
    """Return a digest of a recipe, as 64 hex digits."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def sft_job(recipe: Recipe) -> str:
    """Return the name of the SFT job with this recipe, such as "sft-9f2c9f2c9f2c".

    The checkpoints and the snapshots of different recipes are in directories with different names.
    """
    return f"sft-{digest(recipe)[:12]}"


def changes(before: Recipe, now: Recipe, where: str = "in the run") -> list[str]:
    """Return a text for each key whose value differs, such as "run.seed is 0 in the run and 1 now".

    An absent key counts as its value in _ADDED, or as null. `where` describes the recipe `before`.
    """
    before, now = ({**_ADDED, **recipe} for recipe in (before, now))
    return [
        f"{key} is {_shown(before.get(key))} {where} and {_shown(now.get(key))} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def require_same(before: Recipe | None, now: Recipe, work: str, remedy: str) -> None:
    """Raise PolicyError unless the two recipes are equal.

    `work` names an earlier result in the message. `before` is the recipe that this result records,
    or None if it records none. `remedy` tells the user how to start anew.
    """
    if before is None:
        raise PolicyError(f"{work} records no recipe, so it may have another one: {remedy}")
    found = changes(before, json.loads(json.dumps(now)))
    if found:
        notes = [note for key, note in _NOTES.items() if before.get(key) != now.get(key)]
        raise PolicyError(
            f"{work} has another recipe: {'; '.join(found)}. "
            f"{' '.join([*notes, ''])}Restore the run's settings, or {remedy}"
        )


def read_recipe(store: ObjectStore, key: str) -> Recipe | None:
    """Return the recipe in the object `key`, or None if there is no readable recipe."""
    try:
        found = json.loads(store.get(key))
    except (NotFound, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _settings(name: str, section: Section, left_out: Any) -> Recipe:
    """Return the settings of a section and of its inner sections, by dotted key."""
    found: Recipe = {}
    for key, value in section.model_dump(mode="json", exclude=left_out).items():
        inner = isinstance(getattr(section, key), Section)
        found |= _named(f"{name}.{key}", value) if inner else {f"{name}.{key}": value}
    return found


def _prompts(curate: CurateConfig) -> Recipe:
    """Return a digest of each prompt that curation sends to an endpoint."""
    prompts = {"judge": judge_prompt, "grounding": grounding_prompt}
    asked = {name: read for name, read in prompts.items() if getattr(curate, name) == "endpoint"}
    return {f"prompt of curate.{name}": read(curate).digest() for name, read in asked.items()}


def _engine(engine: EngineConfig) -> Recipe:
    return _named("engine", engine.model_dump(mode="json", include=ENGINE_PARTS))


def _named(name: str, values: Mapping[str, Any]) -> Recipe:
    """Return `values` by dotted key, with "name." before each key."""
    return {f"{name}.{key}": value for key, value in values.items()}


def _data(name: str, samples: str) -> str:
    return f"{name} {samples[:16]}"


def _curated(data: DataConfig, samples: str) -> str:
    """Return the value of "data" in a recipe. `samples` is the digest of the curated samples."""
    return _data(f"{data.name}{CURATED}", samples)


def _with_code(recipe: Recipe) -> Recipe:
    """Return `recipe` with a digest of each file that defines a class or function of the user.

    The result leaves out each setting that has the same value in _ADDED.
    """
    codes = {key: _code(recipe[key]) for key in _PARTS if key in recipe}
    found = {**recipe, **{f"code of {key}": code for key, code in codes.items() if code}}
    return without_added(found, _ADDED)


def _code(part: str) -> str | None:
    """Return a digest of the file that defines `part`, or None if it is built in or has no file.

    The digest does not cover other files that this file imports.
    """
    module, colon, _ = part.partition(":")
    if not colon or module.split(".")[0] == "awares":
        return None
    found = importlib.util.find_spec(module)
    path = Path(found.origin) if found and found.origin else None
    if path is None or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
