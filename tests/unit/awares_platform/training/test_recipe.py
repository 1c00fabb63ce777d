"""Tests which settings are in the recipe of each job, and how a job refuses another recipe.

A recipe holds everything that the result of a job depends on.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awares.errors import PolicyError
from awares.sample import Label, Sample
from awares.whole_image import WholeImage
from awares_platform.config import Section
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.setup import load
from awares_platform.config.sft import SftConfig
from awares_platform.data.manifest import SamplesDigest
from awares_platform.method.prompt_file import PromptText
from awares_platform.training import recipe as recipes
from awares_platform.training.recipe import Recipe, changes, digest, require_same

DATA = "5f2a" * 16


def curate(*overrides: str) -> Recipe:
    config = load("mini", overrides)
    return recipes.label_recipe(config.method, config.engine, config.curate, "9f2c")


def sft(*overrides: str) -> Recipe:
    return recipes.sft_recipe(load("mini", overrides), "9f2c", DATA)


def grpo(*overrides: str) -> Recipe:
    return recipes.grpo_recipe(load("mini", overrides), "9f2c", DATA)


def evaluate(*overrides: str) -> Recipe:
    config = load("mini", overrides)
    return recipes.evaluate_recipe(config, curate(*overrides), {"awares": "9f2c"}, DATA)


NO_RESULT = {
    curate: (
        "curate.in_flight=3",
        "curate.engines=2",
        "curate.judge_endpoint.url=http://elsewhere/v1",
        "curate.judge_endpoint.in_flight=3",
        "curate.grounding_endpoint.timeout_s=3",
        "curate.grounding_endpoint.api_key_variable=OTHER_KEY",
        "method.alpha_miss=9",
        "engine.threads=2",
        "run.seed=5",
    ),
    sft: (
        "sft.micro_tokens=512",
        "sft.micro_batch=8",
        "sft.workers=2",
        "sft.threads=2",
        "sft.zero_stage=3",
        "sft.keep_checkpoints=9",
        "policy.gradient_checkpointing=true",
        "policy.attn=eager",
        "method.alpha_miss=9",
        "method.mapping=iou",
        "engine.threads=2",
        "data.image_cache=/scratch",
        "grpo.learning_rate=1e-3",
    ),
    grpo: (
        "grpo.rollout_actors=4",
        "grpo.groups_in_flight=4",
        "grpo.learner_workers=2",
        "grpo.learner_threads=2",
        "grpo.micro_batch=8",
        "grpo.zero_stage=3",
        "grpo.checkpoint_every=3",
        "grpo.keep_checkpoints=9",
        "grpo.keep_versions=9",
        "grpo.poll_s=3",
        "policy.attn=eager",
        "method.mapping=iou",
        "method.base_prompt=hello",
        "engine.kv_cache_gib=3",
        "sft.learning_rate=1e-4",
        "run.directory=/scratch",
        "store.retry_budget_s=3",
    ),
    evaluate: (
        "evaluate.in_flight=3",
        "evaluate.engine_cpus=2",
        "grpo.steps=3",
        "engine.threads=2",
    ),
}
A_RESULT = {
    curate: {
        "curate.max_tokens=5": "curate.max_tokens",
        "curate.judge_endpoint.model=other": "curate.judge_endpoint.model",
        "curate.min_confidence=0.5": "curate.min_confidence",
        "method.mapping=iou": "method.mapping",
        "method.low_ratio=0.25": "method.low_ratio",
        "method.system_prompt=look closely": "method.system_prompt",
        "engine.max_model_len=2048": "engine.max_model_len",
    },
    sft: {
        "sft.learning_rate=1e-4": "sft.learning_rate",
        "sft.epochs=3": "sft.epochs",
        "sft.validate_every=50": "sft.validate_every",
        "data.held_out=64": "data.held_out",
        "run.seed=1": "run.seed",
        "method.max_pixels=100352": "method.max_pixels",
        "policy.lora_rank=4": "policy.lora_rank",
    },
    grpo: {
        "grpo.learning_rate=1e-3": "grpo.learning_rate",
        "grpo.kl_beta=0.5": "grpo.kl_beta",
        "grpo.group_size=4": "grpo.group_size",
        "grpo.temperature=0.5": "grpo.temperature",
        "grpo.steps=3": "grpo.steps",
        "grpo.staleness_bound=0": "grpo.staleness_bound",
        "method.reward=awares.anls:Reward": "method.reward",
        'method.reward_settings={answer="exact"}': "method.reward_settings",
        "method.answer_weight=1": "method.answer_weight",
        "method.low_ratio=0.25": "method.low_ratio",
        "method.max_pixels=100352": "method.max_pixels",
        "method.system_prompt=look closely": "method.system_prompt",
        "engine.dtype=float16": "engine.dtype",
        "policy.lora_rank=4": "policy.lora_rank",
        "run.seed=1": "run.seed",
        "grpo.start=base": "grpo.start",
        "grpo.validation.every=5": "grpo.validation.every",
        "grpo.validation.patience=5": "grpo.validation.patience",
    },
    evaluate: {
        "evaluate.scorer=docvqa": "evaluate.scorer",
        "evaluate.questions=3": "evaluate.questions",
        "method.alpha_miss=9": "method.alpha_miss",
        "curate.min_confidence=0.5": "curate.min_confidence",
    },
}

Of = Callable[..., Recipe]


def test_a_changed_prompt_of_an_endpoint_makes_other_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = (
        "curate.judge=endpoint",
        "curate.both_wrong=LR",
        "curate.judge_endpoint.url=http://judge/v1",
        "curate.judge_endpoint.model=m",
    )
    before = curate(*asked)
    assert "prompt of curate.judge" in before and "prompt of curate.grounding" not in before
    monkeypatch.setattr(recipes, "judge_prompt", lambda curate: PromptText("Say 2."))
    monkeypatch.setattr(recipes, "grounding_prompt", lambda curate: PromptText("Say where."))
    assert [one.split(" is ")[0] for one in changes(before, curate(*asked))] == [
        "prompt of curate.judge"
    ]


@pytest.mark.parametrize(
    ("job", "override"), [(job, override) for job, keys in NO_RESULT.items() for override in keys]
)
def test_settings_that_change_no_result_are_in_no_recipe(job: Of, override: str) -> None:
    assert job(override) == job()


@pytest.mark.parametrize(
    ("job", "override", "key"),
    [(job, *pair) for job, pairs in A_RESULT.items() for pair in pairs.items()],
)
def test_each_setting_that_changes_a_result_is_named(job: Of, override: str, key: str) -> None:
    [change] = changes(job(), job(override))
    assert change.startswith(f"{key} is ") and digest(job()) != digest(job(override))


SECTIONS: list[tuple[type[Section], set[str]]] = [
    (PolicyConfig, recipes._POLICY_OPERATION),
    (SftConfig, recipes._SFT_OPERATION),
    (GrpoConfig, recipes._GRPO_OPERATION),
    (EvaluateConfig, recipes._EVALUATE_OPERATION),
    (CurateConfig, set(recipes._CURATE_OPERATION)),
    (EndpointConfig, recipes._ENDPOINT_OPERATION),
    (MethodConfig, recipes._LABELS_ONLY | recipes._REWARD_ONLY),
]


@pytest.mark.parametrize(("section", "left_out"), SECTIONS)
def test_every_setting_that_is_left_out_exists(section: type[Section], left_out: set[str]) -> None:
    assert left_out <= section.model_fields.keys()


def test_a_setting_that_older_recipes_lack_is_left_out_until_it_changes_a_result() -> None:
    """Check a setting that older curated sets do not record.

    These sets stay usable while the setting does not change their labels.
    """
    each = ("curate.judge_form=each", "curate.both_wrong=LR")
    recorded = {**curate(), "curate.judge_form": "compare"}
    assert "curate.judge_form" not in curate() and not changes(recorded, curate())
    assert changes(curate("curate.both_wrong=LR"), curate(*each)) == [
        'curate.judge_form is "compare" in the run and "each" now'
    ]


def test_the_recipe_of_labels_has_no_setting_that_nobody_has_decided_on() -> None:
    """Check the settings in the recipe of labels.

    A new setting whose default changes no label belongs in recipe._ADDED, not in this list.
    """
    endpoints = ("judge_endpoint", "grounding_endpoint")
    assert {key for key in curate() if key.startswith("curate.")} == {
        "curate.judge",
        "curate.judge_settings",
        "curate.grounding",
        "curate.grounding_settings",
        "curate.grounding_unit",
        "curate.both_wrong",
        "curate.min_confidence",
        "curate.max_tokens",
        *(f"curate.{name}.{key}" for name in endpoints for key in ("model", "max_tokens")),
    }


def test_every_other_setting_of_sft_and_policy_is_in_the_recipe() -> None:
    """Check that each setting is in the recipe, unless a list in recipe.py leaves it out."""
    found = {key for key in sft() if key.startswith(("sft.", "policy."))}
    assert found == {
        "sft.epochs",
        "sft.learning_rate",
        "sft.warmup_ratio",
        "sft.weight_decay",
        "sft.max_grad_norm",
        "sft.tool_turn_weight",
        "sft.batch_size",
        "sft.validate_every",
        "policy.family",
        "policy.dtype",
        "policy.lora_rank",
        "policy.lora_alpha",
        "policy.lora_targets",
        "policy.train_vision",
    }


def test_the_inputs_contents_are_in_the_recipe() -> None:
    config = load("mini")
    other = "77ab" * 16
    for make in (recipes.sft_recipe, recipes.grpo_recipe):
        [change] = changes(make(config, "9f2c", DATA), make(config, "9f2c", other))
        assert change == (
            'data is "awares-mini-curated 5f2a5f2a5f2a5f2a" in the run and '
            '"awares-mini-curated 77ab77ab77ab77ab" now'
        )
        [change] = changes(make(config, "9f2c", DATA), make(config, "77ab", DATA))
        assert change.endswith('policy is "9f2c" in the run and "77ab" now')


def test_the_digest_of_samples_changes_with_every_label_and_with_their_order() -> None:
    one, two = (Sample(f"s{index}", "a" * 64, "q", "7", label=Label.LR) for index in range(2))
    relabelled = Sample("s1", "a" * 64, "q", "7", label=Label.HR)
    found = [_digest(*samples) for samples in ((one, two), (two, one), (one, relabelled), (one,))]
    assert len(set(found)) == 4 and _digest(one, two) == found[0]


def _digest(*samples: Sample) -> str:
    digest = SamplesDigest()
    digest.add(samples)
    return digest.hex()


@pytest.fixture
def own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own_priced_reward.py"
    path.write_text("PRICE = 1\n")
    yield path


def test_the_code_of_the_users_own_reward_is_in_the_recipe(own_reward: Path) -> None:
    named = "method.reward=own_priced_reward:Reward"
    before = grpo(named)
    own_reward.write_text("PRICE = 2\n")
    [change] = changes(before, grpo(named))
    assert change.startswith("code of method.reward is ")
    assert sft(named) == sft()


def test_a_refusal_names_the_settings_and_the_remedy() -> None:
    before, now = grpo(), grpo("grpo.learning_rate=1e-3", "grpo.steps=9", "run.seed=1")
    require_same(before, grpo(), "checkpoint c", "delete c")
    with pytest.raises(PolicyError) as refused:
        require_same(before, now, "checkpoint c", "delete c")
    assert str(refused.value) == (
        "checkpoint c has another recipe: grpo.learning_rate is 0.0001 in the run and 0.001 now; "
        "grpo.steps is 120 in the run and 9 now; run.seed is 0 in the run and 1 now. "
        "The learning rate falls to zero over grpo.steps, so a run cannot be extended. "
        "Restore the run's settings, or delete c"
    )
    with pytest.raises(PolicyError, match="checkpoint c records no recipe.*: delete c"):
        require_same(None, now, "checkpoint c", "delete c")


@pytest.mark.parametrize("job", [sft, grpo, evaluate])
def test_another_prompt_of_the_environment_is_another_recipe(
    job: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ("method.environment=awares.whole_image:WholeImage", "method.system_prompt=awares")
    before = job(*whole)
    monkeypatch.setattr(WholeImage, "system_prompt", "Say ZOOM.")
    [change] = changes(before, job(*whole))
    assert change.startswith("method.system_prompt is ")


def test_a_long_value_is_cut() -> None:
    [change] = changes({"method.system_prompt": "x" * 999}, {"method.system_prompt": "y"})
    assert len(change) < 150 and change.endswith('xxx... in the run and "y" now')


def test_the_scorer_matters_to_grpo_only_if_it_chooses_the_best_version() -> None:
    other = "evaluate.scorer=docvqa"
    assert grpo(other) == grpo()
    chosen = "grpo.validation.metric=accuracy"
    [change] = changes(grpo(chosen), grpo(chosen, other))
    assert change.startswith("evaluate.scorer is ")


def test_a_guard_matters_to_grpo_only_if_it_restores_the_best_version() -> None:
    for other in ("kl=stop", "kl_above=9", "window=3", "max_restores=9"):
        assert grpo(f"grpo.guards.{other}") == grpo()
    restoring = "grpo.guards.kl=restore-best"
    found = [change.split(" is ")[0] for change in changes(grpo(), grpo(restoring))]
    assert found == [f"grpo.guards.{key}" for key in ("kl", "kl_above", "window")]
    for other in ("max_restores=9", "entropy_below=0.1"):
        assert grpo(restoring, f"grpo.guards.{other}") == grpo(restoring)
    [change] = changes(grpo(restoring), grpo(restoring, "grpo.guards.kl_above=9"))
    assert change == "grpo.guards.kl_above is 2.0 in the run and 9.0 now"
