import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.errors import ConfigError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.config import PlatformConfig, load
from awares_platform.config.base import nearest
from awares_platform.config.setup import _keys, shipped
from awares_platform.method.ratios import ratios

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"
KEYS = [*_keys(PlatformConfig)]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.toml"
    path.write_text("")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_setup_loads_and_survives_its_resolved_json(path: Path, tmp_path: Path) -> None:
    config = load(path)
    resolved = tmp_path / "config.json"
    resolved.write_text(config.model_dump_json())
    assert load(resolved) == config


def test_an_empty_file_is_the_mini_setup(empty: Path) -> None:
    mini = load(CONFIGS / "mini.toml")
    assert load(empty) == mini
    assert (mini.store.endpoint, mini.policy.base, mini.data.source) == ("local", "mini", "mini")


def test_the_paper_setup_has_the_papers_figures() -> None:
    config = load(CONFIGS / "awares-7b.toml")
    assert (
        config.policy.lora_rank,
        config.sft.tool_turn_weight,
        config.grpo.group_size,
        config.grpo.kl_beta,
    ) == (8, 5.0, 8, 0.05)
    assert (
        config.method.alpha_miss,
        config.method.alpha_use,
        config.method.lambda_area,
        config.method.low_ratio,
    ) == (2, 0.25, 0.01, 0.5)
    assert config.grpo.groups_per_step * config.grpo.group_size == 64


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["engine.max_images=10"],
            "method.max_crops = 10 and the low-resolution view are 11 images, more than "
            "engine.max_images = 10: raise the latter to 11, or lower method.max_crops to 9",
        ),
        (
            ["engine.max_model_len=512", "serve.max_tokens=100"],
            "method.max_visual_tokens = 512, 2 turns of serve.max_tokens = 100, a prompt of about "
            "64 and replies of 38 are 814 tokens, more than engine.max_model_len = 512: raise the "
            "latter, or lower one of the former",
        ),
    ],
)
def test_the_largest_request_must_fit_the_engine(
    empty: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(empty, overrides)
    assert str(raised.value) == f"{empty}: {message}"
    assert load(empty, [*overrides, "method.max_turns=1"]).method.max_turns == 1


def test_the_shipped_setups_fit_their_engines() -> None:
    for name in shipped():
        assert load(name).method.max_crops < load(name).engine.max_images


def test_overrides_take_the_type_of_their_key(empty: Path) -> None:
    config = load(
        empty,
        [
            "grpo.learning_rate=1e-5",
            "run.name=7",
            "run.seed=3",
            "sft.use_gpu=true",
            "store.endpoint=http://127.0.0.1:9000",
            'evaluate.policies=["low", "awares"]',
            "engine.kv_cache_gib=none",
            "serve.autoscaling.max_replicas=3",
            "curate.judge_endpoint.url=http://judge:8000/v1",
            "method.system_prompt=Say x = 1",
        ],
    )
    assert config.grpo.learning_rate == 1e-5
    assert config.run.name == "7"
    assert config.run.seed == 3
    assert config.sft.use_gpu is True
    assert config.store.endpoint == "http://127.0.0.1:9000"
    assert config.evaluate.policies == ("low", "awares")
    assert config.engine.kv_cache_gib is None
    assert config.serve.autoscaling == {"max_replicas": 3}
    assert config.curate.judge_endpoint.url == "http://judge:8000/v1"
    assert config.method.system_prompt == "Say x = 1"


def test_the_last_override_of_a_key_counts(empty: Path) -> None:
    assert load(empty, ["run.seed=1", "run.seed=2"]).run.seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "grpo.lerning_rate=1e-5",
            "grpo.lerning_rate: no such key; the nearest is grpo.learning_rate",
        ),
        (
            "serve.learning_rate=1e-5",
            "serve.learning_rate: no such key; the nearest is sft.learning_rate",
        ),
        ("gpro.learning_rate=1e-5", "gpro: no such key; the nearest is grpo"),
        (
            "curate.judge_endpoint.modle=x",
            "curate.judge_endpoint.modle: no such key; the nearest is curate.judge_endpoint.model",
        ),
        ("run.seed=many", "run.seed: write a whole number, such as 0; got 'many'"),
        ("grpo.steps=0", "grpo.steps: Input should be greater than 0; got 0"),
        ("run.name=../escape", "run.name: '../escape' is no run name"),
        (
            "store.url=http://bucket",
            "store.url: 'http://bucket' is no store address: write s3://bucket/prefix",
        ),
        (
            "store.url=s3://bucket/x//y",
            "store.url: 's3://bucket/x//y' has a part that is empty, '.' or '..': remove it",
        ),
        (
            "store.url=s3://bucket//x",
            "store.url: 's3://bucket//x' has a part that is empty, '.' or '..': remove it",
        ),
        (
            "policy.base=s3://bucket/x/../y",
            "policy.base: 's3://bucket/x/../y' has a part that is empty, '.' or '..': remove it",
        ),
        ("store.endpoint=127.0.0.1:9000", "store.endpoint: '127.0.0.1:9000' is no endpoint"),
        (
            "serve.max_pixels_in_flight=1000",
            "serve.max_image_pixels = 64000000 needs a serve.max_pixels_in_flight that is at least",
        ),
        ("learning_rate=1e-5", "override 'learning_rate=1e-5': write section.key=value"),
        ("grpo.learning_rate", "override 'grpo.learning_rate': write section.key=value"),
    ],
)
def test_a_mistake_names_the_key_and_what_would_be_right(
    empty: Path, override: str, expected: str
) -> None:
    assert expected in message(empty, override)


def test_every_mistake_in_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[run]\nseeds = 1\n\n[sft]\nepochs = "two"\n')
    assert message(path).splitlines() == [
        f"{path}: run.seeds: no such key; the nearest is run.seed",
        f"{path}: sft.epochs: write a whole number, such as 2; got 'two'",
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("grpo.learning_rate", "nan", "write a finite number, such as 0.0001; got nan"),
        ("grpo.learning_rate", "true", "write a finite number, such as 0.0001; got true"),
        ("grpo.error_reward", "-inf", "write a finite number, such as -2.0; got -inf"),
        ("engine.kv_cache_gib", "inf", "write a finite number, such as 1.0; got inf"),
        ("engine.kv_cache_gib", "true", "write a finite number, such as 1.0; got true"),
        ("curate.judge_endpoint.timeout_s", "inf", "write a finite number, such as 60.0; got inf"),
        ("run.seed", "true", "write a whole number, such as 0; got true"),
        ("run.seed", '""', "write a whole number, such as 0; got ''"),
        ("run.seed", '"3"', "write a whole number, such as 0; got '3'"),
        ("run.seed", "inf", "write a whole number, such as 0; got inf"),
        ("grpo.steps", "1.5", "write a whole number"),
        ("grpo.zero_stage", "true", "write one of 0, 1, 2, 3; got true"),
        ("sft.use_gpu", "1", "write true or false; got 1"),
        ("sft.use_gpu", '"yes"', "write true or false; got 'yes'"),
        ("run.name", '""', "write a text that is not empty, such as mini; got ''"),
        ("run.directory", '""', "write a text that is not empty, such as runs; got ''"),
        ("policy.base", '" "', "write a text that is not empty, such as mini; got ' '"),
        ("serve.token_env", '""', "write a text that is not empty; got ''"),
        ("serve.image_hosts", '["a.org", ""]', "write a list of texts that are not empty"),
        ("serve.image_hosts", "true", 'write a list in TOML, such as ["a", "b"]; got true'),
        ("sft.selector", "3", 'write a table in TOML, such as {a = "b"}; got 3'),
        ("grpo.learning_rate", '"fast"', "write a finite number, such as 0.0001; got 'fast'"),
        ("evaluate.scorer", '"nosuch"', "scorer 'nosuch' is unknown; use one of exact, chartqa"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_the_file_and_on_the_command_line(
    empty: Path, tmp_path: Path, key: str, value: str, expected: str
) -> None:
    section, _, name = key.rpartition(".")
    path = tmp_path / "wrong.toml"
    path.write_text(f"[{section}]\n{name} = {value}\n")
    for said in (message(path), message(empty, f"{key}={value}")):
        assert f"{key}: {expected}" in said
        assert len(said.splitlines()) == 1


def test_an_override_without_a_value_is_refused(empty: Path) -> None:
    assert "run.name: write a text that is not empty" in message(empty, "run.name=")
    assert "grpo.steps: write a whole number" in message(empty, "grpo.steps=")


@pytest.mark.parametrize("key", KEYS)
def test_no_number_takes_true_or_infinity(empty: Path, key: str) -> None:
    model: Any = PlatformConfig()
    for part in key.split("."):
        model = getattr(model, part)
    if type(model) in (int, float):
        assert key in message(empty, f"{key}=true")
        assert key in message(empty, f"{key}=inf")
        assert key in message(empty, f"{key}=nan")


def test_a_whole_float_is_a_whole_number_and_empty_prompts_are_right(empty: Path) -> None:
    config = load(empty, ["grpo.steps=1e2", "method.system_prompt=", 'data.image_cache=""'])
    assert config.grpo.steps == 100 and config.method.system_prompt == ""


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert "absent.toml: No such file or directory; give --config a TOML file" in message(
        tmp_path / "absent.toml"
    )
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\n")
    assert "broken.toml: is not valid TOML" in message(broken)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.toml", '[run]\ndirectory = "größe"\n'), ("a.json", '{"run": {"directory": "größe"}}')],
)
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8-sig")
    assert load(path).run.directory == Path("größe")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_setup_has_a_name_in_every_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_clone = load(CONFIGS / f"{name}.toml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert load(name) == load(f"jobs/configs/{name}.toml") == in_the_clone


def test_a_file_of_the_user_precedes_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("mini.toml"), Path("jobs/configs/mini.toml")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[run]\nseed = 7\n")
        assert load(path).run.seed == 7


def test_an_absent_setup_is_refused_with_the_names_of_those_that_exist() -> None:
    for absent in ("nosuch", "nosuch.toml", "jobs/configs/nosuch.toml"):
        said = message(Path(absent))
        assert said.startswith(f"{absent}: No such file or directory; give --config a TOML file")
        assert said.endswith(
            "or a setup that comes with awares: awares-7b, awares-7b-native, awares-7b-paper, "
            "chartqa, docvqa, mini, textvqa, visionthink"
        )


def test_a_setup_extends_a_shipped_one(tmp_path: Path) -> None:
    base, paper = load("awares-7b"), load("awares-7b-paper")
    assert (paper.method.views, paper.engine.max_images) == ("paper", 11)
    assert (paper.method.answer_weight, paper.engine.gpu_memory_utilization) == (10.0, 0.85)
    assert (paper.sft, paper.policy) == (base.sft, base.policy)
    # With the paper's views, the GPUs must be divided differently among learner and rollout actors.
    division = {"learner_workers": 7, "rollout_actors": 1}
    assert paper.grpo == base.grpo.model_copy(update=division) != base.grpo
    own = tmp_path / "own.toml"
    own.write_text('extends = "awares-7b"\n[curate.judge_endpoint]\nmodel = "own"\n')
    assert load(own).curate.judge_endpoint.model == "own"
    assert load(own).curate.judge_endpoint.url == base.curate.judge_endpoint.url
    own.write_text('extends = "nosuch"\n')
    with pytest.raises(ConfigError, match="extends = 'nosuch' is no setup that comes with awares"):
        load(own)


@pytest.mark.parametrize(
    ("name", "size", "figures"),
    [
        ("awares-7b-paper", (1700, 2200), (0.588, 1.18, 1.59)),
        ("awares-7b-native", (1700, 2200), (0.243, 0.49, 1.24)),
        ("awares-7b", (1700, 2200), (0.261, 0.52, 1.26)),
        ("awares-7b", (2480, 3508), (0.255, 0.51, 1.25)),
        ("awares-7b", (4032, 3024), (0.257, 0.51, 1.26)),
    ],
)
def test_the_three_setups_of_the_7b_policy_cost_what_they_say(
    name: str, size: tuple[int, int], figures: tuple[float, ...]
) -> None:
    """Check the RTR (retained token ratio) of no request, one crop, and the whole image."""
    found = ratios([size], load(name).method, QWEN2_5_VL).mean
    assert tuple(found.values()) == pytest.approx(figures, abs=0.006)


def test_sections_are_frozen(empty: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(empty).run.seed = 1  # type: ignore[misc]


def without_one_letter(key: str) -> set[str]:
    section, _, name = key.partition(".")
    return {f"{section}.{name[:lost]}{name[lost + 1 :]}" for lost in range(len(name))}


@given(st.sampled_from(KEYS), st.data())
def test_a_key_with_one_letter_lost_is_found(key: str, data: st.DataObject) -> None:
    typo = data.draw(st.sampled_from(sorted(without_one_letter(key))))
    siblings = [other for other in KEYS if other.startswith(f"{key.partition('.')[0]}.")]
    found = nearest(typo, siblings)
    # A typo can be one letter shorter than two different keys. For example, `engine_pus` may mean
    # `engine_cpus` or `engine_gpus`.
    assert typo == found or typo in without_one_letter(found)


@given(st.sampled_from(KEYS))
def test_every_key_can_be_overridden_by_its_own_value(key: str) -> None:
    config = load(CONFIGS / "mini.toml")
    value = json.loads(config.model_dump_json())
    for part in key.split("."):
        value = value[part]
    if isinstance(value, dict):
        return
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    assert load(CONFIGS / "mini.toml", [f"{key}={text}"]) == config


def test_every_key_is_documented() -> None:
    undocumented = [
        f"{section}.{name}"
        for section, outer in PlatformConfig.model_fields.items()
        for name, field in outer.annotation.model_fields.items()  # type: ignore[union-attr]
        if not field.description
    ]
    assert not undocumented


def test_the_setups_are_sparse_and_commented() -> None:
    for path in CONFIGS.glob("*.toml"):
        text = path.read_text()
        assert text.startswith("#")
        assert tomllib.loads(text)


def test_configuration_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "boto3", "transformers", "vllm")
    script = f"import sys, awares_platform.config; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
